import { availableParallelism } from 'node:os';

import { DetinferError, ERRORS, type ErrorCode } from '../protocol/errors.js';
import type { EngineInfo } from '../protocol/messages.js';
import type { AttentionBackend, LoadFormat } from '../protocol/server-args.js';
import { freeBytes, kvPages } from './kv-budget.js';
import { loadAddon } from './load-addon.js';
import { readModelFolder } from './model-folder.js';
import type { NativeEngine, NativeReport, NativeResult, NativeSample, NativeSlice } from './native.js';
import { readWeightTables } from './safetensors.js';
import type { Engine, ForwardSlice, SampleSpec, ScoreResult, SliceResult } from './types.js';

/** What an engine is made of; ServerArgs has all of it. */
export interface EngineOptions {
  modelPath: string;
  loadFormat: LoadFormat;
  jsonModelOverrideArgs: string;
  /** null: the model's own limit. */
  contextLength: number | null;
  /** null: from memFractionStatic. */
  maxTotalTokens: number | null;
  memFractionStatic: number;
  pageSize: number;
  /** null: all cores. */
  threads: number | null;
  maxRunningRequests: number;
  chunkedPrefillSize: number;
  attentionBackend: AttentionBackend;
}

/**
 * Loads a model. @param onProgress gets bytes of weights done and in all.
 * @throws DetinferError INVALID_MODEL, INVALID_WEIGHTS, UNSUPPORTED, INVALID_FLAG, OUT_OF_MEMORY, ENGINE_FAILED
 */
export function loadEngine(options: EngineOptions, onProgress: (done: number, total: number) => void): Engine {
  const addon = loadAddon();
  const folder = readModelFolder(options.modelPath, options.jsonModelOverrideArgs);
  const contextLength = options.contextLength ?? folder.contextLength;
  checkOptions(options, contextLength, folder.contextLength);
  return typedErrors(() => {
    const native = new addon.NativeEngine({
      config: folder.config,
      threads: options.threads ?? availableParallelism(),
      weights: options.loadFormat === 'dummy' ? null : readWeightTables(folder.path),
    });
    const facts = native.facts();
    const pages = kvPages({
      freeBytes: freeBytes(),
      weightBytes: facts.weightBytes,
      bytesPerToken: facts.kvBytesPerToken,
      pageSize: options.pageSize,
      maxTotalTokens: options.maxTotalTokens,
      memFractionStatic: options.memFractionStatic,
    });
    const weightBytesPerToken = native.load(onProgress);
    native.allocateCache(options.pageSize, pages, contextLength);
    const maxTotalTokens = pages * options.pageSize;
    return new CpuEngine(native, {
      numericContract: addon.numericContract,
      modelType: folder.modelType,
      architectures: folder.architectures,
      device: 'cpu',
      deviceName: facts.deviceName,
      dtype: 'bfloat16',
      attentionBackend: options.attentionBackend,
      vocabSize: facts.vocabSize,
      contextLength,
      pageSize: options.pageSize,
      maxTotalTokens,
      maxRunningRequests: options.maxRunningRequests,
      chunkedPrefillSize: options.chunkedPrefillSize,
      weightBytes: facts.weightBytes,
      weightBytesPerToken,
      kvBytesPerToken: facts.kvBytesPerToken,
      kvBytes: maxTotalTokens * facts.kvBytesPerToken,
      threads: facts.threads,
      eosTokenIds: folder.eosTokenIds,
    });
  });
}

/** Has the kernel kill this process when its parent dies, even while the engine keeps the event loop busy. */
export function dieWithParent(): void {
  loadAddon().dieWithParent();
}

function checkOptions(options: EngineOptions, contextLength: number, limit: number): void {
  const positive = (value: number): boolean => Number.isInteger(value) && value > 0;
  const refuse = (message: string): never => {
    throw new DetinferError('INVALID_FLAG', message);
  };
  if (!positive(contextLength) || contextLength > limit) {
    refuse(`--context-length ${contextLength}: it must be from 1 to the model's ${limit}`);
  }
  if (!positive(options.pageSize) || options.pageSize % 16 !== 0) {
    refuse(`--page-size ${options.pageSize}: it must be a multiple of 16`);
  }
  if (options.threads !== null && !positive(options.threads)) {
    refuse(`--threads ${options.threads}: it must be a positive integer`);
  }
  if (options.maxTotalTokens !== null && options.maxTotalTokens < options.pageSize) {
    refuse(`--max-total-tokens ${options.maxTotalTokens}: it must be at least a page of ${options.pageSize} tokens`);
  }
}

class CpuEngine implements Engine {
  readonly info: EngineInfo;
  private readonly native: NativeEngine;
  private failed = false;

  constructor(native: NativeEngine, info: EngineInfo) {
    this.native = native;
    this.info = info;
  }

  forward(slices: ForwardSlice[]): SliceResult[] {
    if (this.failed) throw new DetinferError('ENGINE_FAILED', 'the engine has failed before; restart the server');
    try {
      return typedErrors(() => this.native.forward(slices.map(toNative))).map(toResult);
    } catch (error) {
      // A request that was refused has changed nothing.
      this.failed = !(error instanceof DetinferError && error.code === 'INVALID_REQUEST');
      throw error;
    }
  }

  close(): void {
    this.failed = true;
    this.native.close();
  }
}

/** Errors of the addon carry a code; they leave as DetinferError. */
function typedErrors<T>(body: () => T): T {
  try {
    return body();
  } catch (error) {
    // No instanceof: the addon's errors belong to the realm that loaded it.
    const { code, message } = error as { code?: string; message: string };
    if (error instanceof DetinferError || code === undefined || !(code in ERRORS)) throw error;
    throw new DetinferError(code as ErrorCode, message, { cause: error });
  }
}

function int32s(values: ArrayLike<number>): Int32Array {
  return values instanceof Int32Array ? values : Int32Array.from(values);
}

function float32s(values: ArrayLike<number>): Float32Array {
  return values instanceof Float32Array ? values : Float32Array.from(values);
}

function toNative(slice: ForwardSlice): NativeSlice {
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

const NO_REPORT: NativeReport = {
  logprobs: new Float32Array(0),
  topLogprobs: new Float32Array(0),
  topIds: new Int32Array(0),
  tokenIdLogprobs: new Float32Array(0),
};

function toResult(result: NativeResult): SliceResult {
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
