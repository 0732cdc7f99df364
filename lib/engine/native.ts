/**
 * The addon's exports, implemented in cuda/addon. Every method throws an Error whose `code` is an ErrorCode; only
 * load-addon.ts and engine.ts see these types.
 */
import type { AttentionBackend } from '../protocol/server-args.js';
import type { JsonObject } from './json.js';
import type { WeightTables } from './safetensors.js';

export interface NativeAddon {
  NativeEngine: new (options: NativeOptions) => NativeEngine;
  numericContract: string;
  /** The devices that the addon can run on, by index; throws when their driver does not answer. */
  deviceNames(): string[];
  /** Bytes per second that the device (host memory: so many threads) reads. */
  measureBandwidth(threads: number): number;
}

export interface NativeOptions {
  config: JsonObject;
  threads: number;
  /** null: dummy weights. */
  weights: WeightTables | null;
  /** For the CUDA addon, which needs it; the CPU's takes none. */
  cuda?: {
    /** Index of the GPU. */
    device: number;
    attentionBackend: AttentionBackend;
    /** Largest batch of decodes that gets a CUDA graph; 0: none does. */
    graphMaxBatch: number;
  };
}

/**
 * The constructor checks config and weights and allocates nothing; then load, reserve, allocateCache, any number of
 * submit and collect, close.
 */
export interface NativeEngine {
  facts(): NativeFacts;
  /** Memory of the GPU now; null: the engine uses host memory. */
  deviceMemory(): DeviceMemory | null;
  /** Returns the bytes of weights that one decoded token must read. */
  load(onProgress: (done: number, total: number) => void): number;
  /** Reserves the buffers of a step of at most so many rows and slices; larger steps are computed in passes. */
  reserve(stepTokens: number, stepSequences: number): void;
  allocateCache(pageSize: number, pages: number, contextLength: number): void;
  /** Checks a step and starts it; may return before it is done. Its arrays are not read afterwards. */
  submit(step: NativeStep): void;
  /** Waits for the oldest step that was not collected. */
  collect(): NativeResults;
  /** Runs slices by themselves; logits of every scored and every drawing row, row-major. */
  logits(step: NativeStep): Float32Array;
  close(): void;
}

/** In bytes. */
export interface DeviceMemory {
  total: number;
  free: number;
}

export interface NativeFacts {
  deviceName: string;
  threads: number;
  vocabSize: number;
  maxPositions: number;
  weightBytes: number;
  kvBytesPerToken: number;
}

/** The slices of a step one after another, as StepWriter writes them. */
export interface NativeStep {
  slices: number;
  numbers: Float64Array;
  words: Int32Array;
}

/** Row-major over the rows. */
export interface NativeReport {
  logprobs: Float32Array;
  topLogprobs: Float32Array;
  topIds: Int32Array;
  tokenIdLogprobs: Float32Array;
}

export interface NativeResults {
  /** By slice; -1 for one that draws none. */
  tokens: Int32Array;
  /** Of those slices that ask for some. */
  reports: NativeReports[];
}

export interface NativeReports {
  slice: number;
  sampled?: NativeReport;
  scored?: NativeReport;
}
