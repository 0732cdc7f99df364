import { DetinferError } from '../protocol/errors.js';
import type { AttentionBackend, Device, LoadFormat } from '../protocol/server-args.js';

/** What an engine is made of; ServerArgs has all of it. */
export interface EngineOptions {
  modelPath: string;
  loadFormat: LoadFormat;
  jsonModelOverrideArgs: string;
  device: Device;
  /** Index of the GPU. */
  baseGpuId: number;
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
  maxPrefillTokens: number;
  attentionBackend: AttentionBackend;
  disableCudaGraph: boolean;
  /** Largest batch of decodes that a CUDA graph is made for; null: see graphMaxBatch(). */
  cudaGraphMaxBs: number | null;
}

/** A step of more rows is computed in passes of at most this many, so larger buffers would be of no use. */
const PASS_TOKENS = { cpu: 1024, cuda: 8192 } as const;

/** SGLang's default of --cuda-graph-max-bs on the GPUs that this is for. */
const DEFAULT_GRAPH_MAX_BATCH = 256;

/**
 * Checks everything that can be checked without the model.
 * @throws DetinferError INVALID_FLAG, UNSUPPORTED
 */
export function checkOptions(options: EngineOptions): void {
  const { device, pageSize, threads, maxTotalTokens } = options;
  if (!isPositive(pageSize) || pageSize % 16 !== 0) refuse(`--page-size ${pageSize}: it must be a multiple of 16`);
  if (threads !== null && !isPositive(threads)) refuse(`--threads ${threads}: it must be a positive integer`);
  if (maxTotalTokens !== null && maxTotalTokens < pageSize) {
    refuse(`--max-total-tokens ${maxTotalTokens}: it must be at least a page of ${pageSize} tokens`);
  }
  if (device !== 'cuda') return;
  if (!Number.isInteger(Math.log2(pageSize / 16))) {
    refuse(`--page-size ${pageSize}: on a GPU it must be 16, 32, 64, 128 and so on, doubling`);
  }
}

/** @param limit the model's own. @throws DetinferError INVALID_FLAG */
export function checkContextLength(contextLength: number, limit: number): void {
  if (isPositive(contextLength) && contextLength <= limit) return;
  refuse(`--context-length ${contextLength}: it must be from 1 to the model's ${limit}`);
}

/** Most rows that the engine's buffers must hold at once: what a step can have, up to what one pass takes. */
export function stepTokens(options: EngineOptions, contextLength: number): number {
  const { device, chunkedPrefillSize, maxPrefillTokens, maxRunningRequests } = options;
  // A prompt that is not cut may exceed the budget of a step.
  const prefill = chunkedPrefillSize > 0 ? maxPrefillTokens : Math.max(maxPrefillTokens, contextLength);
  const decodes = device === 'cuda' ? maxRunningRequests : 0;
  return Math.min(prefill + maxRunningRequests, PASS_TOKENS[device] + decodes);
}

/** Largest batch of decodes that gets a CUDA graph; 0: none does. */
export function graphMaxBatch({ disableCudaGraph, cudaGraphMaxBs, maxRunningRequests }: EngineOptions): number {
  if (disableCudaGraph) return 0;
  return Math.min(cudaGraphMaxBs ?? DEFAULT_GRAPH_MAX_BATCH, maxRunningRequests);
}

function isPositive(value: number): boolean {
  return Number.isInteger(value) && value > 0;
}

function refuse(message: string): never {
  throw new DetinferError('INVALID_FLAG', message);
}
