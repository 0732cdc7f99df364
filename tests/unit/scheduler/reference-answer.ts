import type { SampleSpec } from '../../../lib/engine/types.js';
import type { FinishReason, LogprobRequest, TokenLogprob, WorkerRequest } from '../../../lib/protocol/messages.js';
import type { GrammarSpec, StopConditions } from '../../../lib/protocol/sampling.js';
import { Grammars } from '../../../lib/grammar/grammars.js';
import { drawToken, FAKE_TOKENS, hashOf, rowLogprobs, type RowLogprobs } from './fake-model.js';

export interface Answer {
  tokens: number[];
  logprobs: TokenLogprob[];
  promptLogprobs: TokenLogprob[];
  finish: FinishReason;
}

/** What a request must yield, by the plainest loop: one request alone, no pages, no cache, everything from scratch. */
export function referenceAnswer(request: WorkerRequest, lengthLimit: number): Answer {
  const { inputIds, stop, logprobs } = request;
  const temperature = request.sampling.temperature < 1e-6 ? 1 : request.sampling.temperature;
  const entry = (prefix: number[], tokenId: number, wanted: LogprobRequest): TokenLogprob =>
    toEntry(tokenId, rowLogprobs(hashOf(prefix), temperature, tokenId, wanted.top, wanted.tokenIds), wanted);

  const answer: Answer = { tokens: [], logprobs: [], promptLogprobs: [], finish: { type: 'length', length: 0 } };
  for (let i = logprobs?.promptStart ?? inputIds.length; i < inputIds.length; i++) {
    const isFirst = i === logprobs!.promptStart;
    const scored = entry(inputIds.slice(0, i), inputIds[i]!, logprobs!);
    answer.promptLogprobs.push(isFirst ? withoutScore(scored) : scored);
  }
  const known = [...inputIds];
  while (answer.tokens.length < stop.maxNewTokens && known.length < lengthLimit) {
    const token = drawToken(hashOf(known), sampleSpec(request, answer.tokens));
    if (logprobs !== null) answer.logprobs.push(entry(known, token, logprobs));
    known.push(token);
    answer.tokens.push(token);
    answer.finish = { type: 'length', length: answer.tokens.length };
    if (stop.stopTokenIds.includes(token)) {
      answer.finish = { type: 'stop', matched: token };
      break;
    }
  }
  return answer;
}

function toEntry(tokenId: number, row: RowLogprobs, wanted: LogprobRequest): TokenLogprob {
  const entry: TokenLogprob = { tokenId, logprob: row.logprob };
  if (wanted.top > 0) entry.top = row.top;
  if (wanted.tokenIds.length > 0) entry.ids = wanted.tokenIds.map((id, i) => [row.ids[i]!, id]);
  return entry;
}

function withoutScore(entry: TokenLogprob): TokenLogprob {
  const result: TokenLogprob = { tokenId: entry.tokenId, logprob: null };
  if (entry.top !== undefined) result.top = null;
  if (entry.ids !== undefined) result.ids = null;
  return result;
}

function sampleSpec({ inputIds, sampling, stop }: WorkerRequest, output: number[]): SampleSpec {
  const bans = sampling.grammar === null && output.length < stop.minNewTokens;
  const banned = bans ? stop.stopTokenIds : [];
  const bias: [number, number][] = [...sampling.logitBias, ...banned.map((id): [number, number] => [id, -Infinity])];
  const ids = [...new Set(output)];
  const seed = BigInt.asUintN(64, BigInt(sampling.seed));
  return {
    greedy: sampling.temperature < 1e-6,
    temperature: sampling.temperature,
    topK: sampling.topK,
    topP: sampling.topP,
    minP: sampling.minP,
    seedLow: Number(seed & 0xffffffffn),
    seedHigh: Number(seed >> 32n),
    position: inputIds.length + output.length - 1,
    biasIds: bias.map(([id]) => id),
    biasValues: bias.map(([, value]) => Math.fround(value)),
    penalties: {
      frequency: sampling.frequencyPenalty,
      presence: sampling.presencePenalty,
      repetition: sampling.repetitionPenalty,
      ids,
      counts: ids.map((id) => output.filter((token) => token === id).length),
    },
    allowed: allowedTokens(sampling.grammar, stop, output),
    logprob: true,
    top: 0,
    tokenIds: [],
  };
}

/** The reference's own, apart from those of the scheduler. */
const GRAMMARS = new Grammars(() => FAKE_TOKENS);

/** Computed from the whole output at every step. */
function allowedTokens(grammar: GrammarSpec | null, stop: StopConditions, output: number[]): Uint32Array | null {
  if (grammar === null) return null;
  const matcher = GRAMMARS.matcher(grammar, stop.stopTokenIds);
  for (const token of output) matcher.advance(token);
  return matcher.allowed(output.length < stop.minNewTokens);
}
