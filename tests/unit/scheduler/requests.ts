import type { RequestEvent, TokenLogprob, WorkerRequest } from '../../../lib/protocol/messages.js';
import type { StopConditions, TokenSampling } from '../../../lib/protocol/sampling.js';
import type { Scheduler } from '../../../lib/scheduler/scheduler.js';

export const GREEDY: TokenSampling = {
  temperature: 0,
  topK: -1,
  topP: 1,
  minP: 0,
  frequencyPenalty: 0,
  presencePenalty: 0,
  repetitionPenalty: 1,
  logitBias: [],
  grammar: null,
  seed: 42,
};

/** A greedy request without stop ids or logprobs, but for what is given. */
export function makeRequest(
  id: string,
  inputIds: number[],
  given: {
    sampling?: Partial<TokenSampling>;
    stop?: Partial<StopConditions>;
    logprobs?: WorkerRequest['logprobs'];
    outputIds?: number[];
  } = {},
): WorkerRequest {
  return {
    id,
    inputIds,
    outputIds: given.outputIds ?? [],
    sampling: { ...GREEDY, ...given.sampling },
    stop: { stopTokenIds: [], minNewTokens: 0, maxNewTokens: 8, ...given.stop },
    logprobs: given.logprobs ?? null,
  };
}

/** What the events of one request add up to. Checks their order and form as they come. */
export class Collected {
  tokens: number[] = [];
  logprobs: TokenLogprob[] = [];
  prompt: RequestEvent['prompt'];
  finish: RequestEvent['finish'];
  private events = 0;

  add(event: RequestEvent): void {
    const fail = (what: string): never => {
      throw new Error(`request ${event.id}: ${what}`);
    };
    if (this.finish !== undefined) fail('an event after the last');
    if (event.prompt !== undefined && this.events > 0) fail('prompt is not in the first event');
    if (event.prompt === undefined && this.events === 0 && event.finish?.type !== 'abort')
      fail('no prompt in the first event');
    if (event.logprobs !== undefined && event.logprobs.length !== event.tokens.length)
      fail('logprobs and tokens differ');
    this.events++;
    this.prompt ??= event.prompt;
    this.tokens.push(...event.tokens);
    this.logprobs.push(...(event.logprobs ?? []));
    this.finish = event.finish;
  }
}

/** Collects the events of many requests. */
export class Collector {
  readonly requests = new Map<string, Collected>();

  add(events: RequestEvent[]): void {
    for (const event of events) {
      let collected = this.requests.get(event.id);
      if (collected === undefined) this.requests.set(event.id, (collected = new Collected()));
      collected.add(event);
    }
  }

  get(id: string): Collected {
    const collected = this.requests.get(id);
    if (collected === undefined) throw new Error(`request ${id} has no event`);
    return collected;
  }
}

const MAX_STEPS = 10_000;

/** Steps until nothing is live, and collects the events. */
export function runToEnd(scheduler: Scheduler, collector = new Collector()): Collector {
  for (let step = 0; scheduler.isBusy; step++) {
    if (step === MAX_STEPS) throw new Error(`still busy after ${MAX_STEPS} steps`);
    collector.add(scheduler.step());
  }
  return collector;
}
