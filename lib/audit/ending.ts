import type { Receipt } from '../receipt/receipt.js';

/** What can be said about the end of an answer. */
export interface Ending {
  /** Why the answer cannot have ended as the receipt says. */
  problem: string | null;
  /** What the receipt cannot show. */
  unchecked: string | null;
}

const RIGHT: Ending = { problem: null, unchecked: null };

/** @param contextLength of the model: an output may end there. */
export function endingOf(receipt: Receipt, contextLength: number): Ending {
  const { prompt_ids: prompt, output_ids: outputs, finish_reason: finish, sampling } = receipt;
  const { stop_token_ids: stopIds, max_new_tokens: limit } = sampling;
  const stop = outputs.findIndex((id) => stopIds.includes(id));
  if (stop >= 0 && stop < outputs.length - 1) {
    return wrong(`output token ${stop} is the stop token ${outputs[stop]}, and the output goes on behind it`);
  }
  if (outputs.length > limit) return wrong(`output token ${limit} is one more than max_new_tokens, which is ${limit}`);
  switch (finish.type) {
    case 'abort':
      return { problem: null, unchecked: 'how the output would have gone on: it was aborted' };
    case 'stop':
      if (stop >= 0 && (typeof finish.matched === 'string' || finish.matched === outputs[stop])) return RIGHT;
      if (typeof finish.matched === 'number') {
        return wrong(`the output does not end with the stop token ${finish.matched}`);
      }
      return { problem: null, unchecked: `that the text ends with the stop string ${JSON.stringify(finish.matched)}` };
    case 'length':
      if (stop >= 0) return wrong(`the output ends with the stop token ${outputs[stop]}, and finish_reason is length`);
      if (finish.length !== outputs.length) {
        return wrong(`finish_reason says ${finish.length} output tokens, and there are ${outputs.length}`);
      }
      if (outputs.length === limit || prompt.length + outputs.length === contextLength) return RIGHT;
      return { problem: null, unchecked: 'that the server had no room for more tokens, as its finish_reason says' };
  }
}

function wrong(problem: string): Ending {
  return { problem, unchecked: null };
}
