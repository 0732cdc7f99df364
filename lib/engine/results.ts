import type { NativeReport, NativeResults } from './native.js';
import type { ScoreResult, SliceResult } from './types.js';

const NO_REPORT: NativeReport = {
  logprobs: new Float32Array(0),
  topLogprobs: new Float32Array(0),
  topIds: new Int32Array(0),
  tokenIdLogprobs: new Float32Array(0),
};

/** What the addon returns of a step, by slice. */
export function toResults({ tokens, reports }: NativeResults): SliceResult[] {
  const results: SliceResult[] = [];
  for (const token of tokens) results.push(toResult(token, NO_REPORT, null));
  for (const { slice, sampled = NO_REPORT, scored = null } of reports) {
    results[slice] = toResult(tokens[slice]!, sampled, scored);
  }
  return results;
}

function toResult(token: number, sampled: NativeReport, score: ScoreResult | null): SliceResult {
  return {
    token,
    logprob: sampled.logprobs[0] ?? NaN,
    topLogprobs: sampled.topLogprobs,
    topIds: sampled.topIds,
    tokenIdLogprobs: sampled.tokenIdLogprobs,
    score,
  };
}
