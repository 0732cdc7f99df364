/** Between the engine's types and those of the addon, in which every array is typed. */
import type { NativeReport, NativeResult, NativeSample, NativeSlice } from './native.js';
import type { ForwardSlice, SampleSpec, ScoreResult, SliceResult } from './types.js';

const NO_REPORT: NativeReport = {
  logprobs: new Float32Array(0),
  topLogprobs: new Float32Array(0),
  topIds: new Int32Array(0),
  tokenIdLogprobs: new Float32Array(0),
};

export function toNative(slice: ForwardSlice): NativeSlice {
  const { score, sample } = slice;
  return {
    tokens: int32s(slice.tokens),
    start: slice.start,
    pages: int32s(slice.pages),
    logprobTemperature: slice.logprobTemperature,
    score: score && { ...score, targets: int32s(score.targets), tokenIds: int32s(score.tokenIds) },
    sample: sample && toNativeSample(sample),
  };
}

function toNativeSample(sample: SampleSpec): NativeSample {
  const { penalties } = sample;
  return {
    ...sample,
    biasIds: int32s(sample.biasIds),
    biasValues: float32s(sample.biasValues),
    penalties: penalties && { ...penalties, ids: int32s(penalties.ids), counts: int32s(penalties.counts) },
    tokenIds: int32s(sample.tokenIds),
  };
}

export function toResult(result: NativeResult): SliceResult {
  const sampled = result.sampled ?? NO_REPORT;
  return {
    token: result.token,
    logprob: sampled.logprobs[0] ?? NaN,
    topLogprobs: sampled.topLogprobs,
    topIds: sampled.topIds,
    tokenIdLogprobs: sampled.tokenIdLogprobs,
    score: (result.scored as ScoreResult | undefined) ?? null,
  };
}

function int32s(values: ArrayLike<number>): Int32Array {
  return values instanceof Int32Array ? values : Int32Array.from(values);
}

function float32s(values: ArrayLike<number>): Float32Array {
  return values instanceof Float32Array ? values : Float32Array.from(values);
}
