import type { ScoreResult, SliceResult } from '../engine/types.js';
import type { LogprobRequest, TokenLogprob } from '../protocol/messages.js';

type Pairs = [logprob: number, tokenId: number][];

/** The entry of a drawn token. */
export function outputEntry(request: LogprobRequest, result: SliceResult): TokenLogprob {
  const entry: TokenLogprob = { tokenId: result.token, logprob: result.logprob };
  if (request.top > 0) entry.top = pairs(result.topLogprobs, result.topIds, 0, result.topIds.length);
  if (request.tokenIds.length > 0) {
    entry.ids = pairs(result.tokenIdLogprobs, request.tokenIds, 0, request.tokenIds.length);
  }
  return entry;
}

/** The entry of the first prompt token that was asked for: no row scores it. */
export function unscoredEntry(request: LogprobRequest, tokenId: number): TokenLogprob {
  const entry: TokenLogprob = { tokenId, logprob: null };
  if (request.top > 0) entry.top = null;
  if (request.tokenIds.length > 0) entry.ids = null;
  return entry;
}

/** The entry of `tokenId`, the target of row `row` of `score`, which has `rows` rows. */
export function scoredEntry(
  request: LogprobRequest,
  tokenId: number,
  score: ScoreResult,
  row: number,
  rows: number,
): TokenLogprob {
  const entry: TokenLogprob = { tokenId, logprob: score.logprobs[row]! };
  if (request.top > 0) {
    const width = score.topIds.length / rows;
    entry.top = pairs(score.topLogprobs, score.topIds, row * width, width);
  }
  if (request.tokenIds.length > 0) {
    const width = request.tokenIds.length;
    entry.ids = pairs(score.tokenIdLogprobs.subarray(row * width, (row + 1) * width), request.tokenIds, 0, width);
  }
  return entry;
}

/** Elements from … from+count-1 of two parallel arrays. */
function pairs(logprobs: ArrayLike<number>, ids: ArrayLike<number>, from: number, count: number): Pairs {
  const result: Pairs = [];
  for (let i = from; i < from + count; i++) result.push([logprobs[i]!, ids[i]!]);
  return result;
}
