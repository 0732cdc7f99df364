import type { SampleSpec } from '../../../lib/engine/types.js';

// Globals are slow to look up inside Jest's module context, and these are called millions of times.
const { exp, fround, imul, log } = Math;

/** A "language model" whose logits at a row are a hash of all tokens up to it. */
export const VOCAB_SIZE = 24;
/** Tokens are letters, but for the last, which is no text. */
export const FAKE_TOKENS = Array.from({ length: VOCAB_SIZE }, (_, id) =>
  id === VOCAB_SIZE - 1 ? null : Uint8Array.of(97 + id),
);
export const EMPTY_HASH = 0x9e3779b9;

export interface RowLogprobs {
  logprob: number;
  top: [logprob: number, tokenId: number][];
  ids: number[];
}

function mix(a: number, b: number): number {
  let h = imul(a ^ imul(b + 0x7f4a7c15, 0x85ebca6b), 0xc2b2ae35);
  h ^= h >>> 15;
  h = imul(h, 0x2c1b3c6d);
  return (h ^ (h >>> 13)) >>> 0;
}

/** Hash of a prefix and one more token. */
export function extendHash(hash: number, token: number): number {
  return mix(hash, token);
}

export function hashOf(tokens: readonly number[]): number {
  return tokens.reduce(extendHash, EMPTY_HASH);
}

function logits(hash: number): number[] {
  return Array.from({ length: VOCAB_SIZE }, (_, token) => (mix(hash, token) / 2 ** 32) * 6 - 3);
}

function logSoftmax(values: readonly number[]): number[] {
  const max = values.reduce((a, b) => (a > b ? a : b));
  const sum = values.reduce((total, value) => total + exp(value - max), 0);
  return values.map((value) => fround(value - max - log(sum)));
}

function byRank(values: readonly number[]): number[] {
  return values.map((_, id) => id).sort((a, b) => values[b]! - values[a]! || a - b);
}

/** Log-probabilities at the row whose prefix has this hash. */
export function rowLogprobs(
  hash: number,
  temperature: number,
  target: number,
  top: number,
  tokenIds: ArrayLike<number>,
): RowLogprobs {
  const values = logSoftmax(logits(hash).map((logit) => logit / temperature));
  const ranked = byRank(values).slice(0, top);
  return {
    logprob: values[target]!,
    top: ranked.map((id) => [values[id]!, id]),
    ids: Array.from(tokenIds, (id) => values[id]!),
  };
}

/** The token drawn at the row whose prefix has this hash. */
export function drawToken(hash: number, spec: SampleSpec): number {
  const adjusted = logits(hash);
  if (spec.penalties !== null) {
    const { ids, counts, frequency, presence, repetition } = spec.penalties;
    for (let i = 0; i < ids.length; i++) {
      const logit = adjusted[ids[i]!]! - frequency * counts[i]! - presence;
      adjusted[ids[i]!] = logit > 0 ? logit / repetition : logit * repetition;
    }
  }
  for (let i = 0; i < spec.biasIds.length; i++) adjusted[spec.biasIds[i]!]! += spec.biasValues[i]!;
  const { allowed } = spec;
  if (allowed !== null) {
    for (let id = 0; id < VOCAB_SIZE; id++) if (((allowed[0]! >>> id) & 1) === 0) adjusted[id] = -Infinity;
  }
  if (spec.greedy) return byRank(adjusted)[0]!;
  const values = logSoftmax(adjusted.map((logit) => logit / spec.temperature));
  const ranked = byRank(values);
  const best = exp(values[ranked[0]!]!);
  let mass = 0;
  const kept = ranked.filter((id, rank) => {
    const weight = exp(values[id]!);
    const keep = (spec.topK === -1 || rank < spec.topK) && mass <= spec.topP && weight >= spec.minP * best;
    mass += weight;
    return keep;
  });
  const noise = (id: number): number => {
    const u = mix(mix(mix(spec.seedLow, spec.seedHigh), spec.position), id) / 2 ** 32;
    return -log(-log(u + 1e-9));
  };
  return kept.reduce((a, b) => (values[b]! + noise(b) > values[a]! + noise(a) ? b : a));
}
