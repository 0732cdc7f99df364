import { freemem } from 'node:os';

import { DetinferError } from '../protocol/errors.js';
import type { DeviceMemory } from './native.js';

/** More tokens than this help nobody who runs on a CPU; a larger cache must be asked for. */
const MAX_DEFAULT_HOST_TOKENS = 262_144;

/** What has to fit into memory, and the flags that say how much of it may be used. */
export interface KvDemand {
  weightBytes: number;
  bytesPerToken: number;
  pageSize: number;
  maxTotalTokens: number | null;
  memFractionStatic: number;
}

/** Bytes that this process can still get, of the machine or of its control group. */
export function freeBytes(): number {
  // Since Node 20.13; os.freemem() knows no control groups.
  return process.availableMemory?.() ?? freemem();
}

/**
 * Number of pages of a KV cache in host memory: as --max-total-tokens says, or what --mem-fraction-static of the free
 * memory leaves beside the weights.
 * @param free bytes free before the weights were loaded.
 * @throws DetinferError OUT_OF_MEMORY when they don't fit
 */
export function hostPages(demand: KvDemand, free: number): number {
  const { weightBytes, pageSize, maxTotalTokens, memFractionStatic } = demand;
  const page = pageBytes(demand);
  if (weightBytes + page > free) {
    throw outOfMemory(`the weights take ${gib(weightBytes)} of ${gib(free)} free; choose a smaller model`);
  }
  if (maxTotalTokens !== null) {
    const pages = wantedPages(maxTotalTokens, pageSize);
    const limit = free - weightBytes;
    if (pages * page <= limit) return pages;
    throw outOfMemory(
      `a KV cache of ${maxTotalTokens} tokens takes ${gib(pages * page)}, but beside the weights only ` +
        `${gib(limit)} are free; lower --max-total-tokens to at most ${Math.floor(limit / page) * pageSize}`,
    );
  }
  const budget = free * memFractionStatic - weightBytes;
  if (budget < page) {
    throw outOfMemory(
      `--mem-fraction-static ${memFractionStatic} of ${gib(free)} free leaves no room for the KV cache ` +
        `beside weights of ${gib(weightBytes)}; raise it, or set --max-total-tokens`,
    );
  }
  return Math.max(1, Math.floor(Math.min(budget / page, MAX_DEFAULT_HOST_TOKENS / pageSize)));
}

/**
 * Refuses weights that a GPU cannot hold, before they are loaded.
 * @throws DetinferError OUT_OF_MEMORY when not even one page of the KV cache would fit beside them
 */
export function checkDeviceWeights(demand: KvDemand, memory: DeviceMemory): void {
  const { weightBytes, memFractionStatic } = demand;
  const { total, free } = memory;
  if (weightBytes + pageBytes(demand) > free) {
    throw outOfMemory(
      `the weights take ${gib(weightBytes)}, but of the GPU's ${gib(total)} only ${gib(free)} are free; ` +
        'end the other programs on it (nvidia-smi lists them), choose another GPU with --base-gpu-id, or serve a ' +
        'smaller model',
    );
  }
  if (staticBudget(memory, memFractionStatic) - weightBytes < pageBytes(demand)) {
    throw outOfMemory(
      `--mem-fraction-static ${memFractionStatic} of the GPU's ${gib(total)} leaves no room for the KV cache beside ` +
        `weights of ${gib(weightBytes)}${othersUse(total - free)}; raise it, or serve a smaller model`,
    );
  }
}

/**
 * Number of pages of a KV cache in a GPU's memory. --mem-fraction-static is the share of all of it that weights, buffers
 * and KV cache may take; the rest is for what a GPU needs while it runs.
 * @param memory once weights and buffers are allocated.
 * @throws DetinferError OUT_OF_MEMORY when the cache does not fit
 */
export function devicePages(demand: KvDemand, memory: DeviceMemory): number {
  const { pageSize, maxTotalTokens, memFractionStatic } = demand;
  const page = pageBytes(demand);
  const budget = staticBudget(memory, memFractionStatic);
  const possible = Math.floor(budget / page);
  const used = gib(memory.total - memory.free);
  if (possible < 1) {
    throw outOfMemory(
      `--mem-fraction-static ${memFractionStatic} of the GPU's ${gib(memory.total)} leaves no room for the KV cache: ` +
        `weights, buffers and other programs take ${used}; raise it, or lower --max-running-requests or ` +
        '--chunked-prefill-size',
    );
  }
  if (maxTotalTokens === null) return possible;
  const pages = wantedPages(maxTotalTokens, pageSize);
  if (pages <= possible) return pages;
  throw outOfMemory(
    `a KV cache of ${maxTotalTokens} tokens takes ${gib(pages * page)}, but --mem-fraction-static ${memFractionStatic} ` +
      `of the GPU's ${gib(memory.total)} leaves ${gib(budget)}, since weights, buffers and other programs take ${used}; ` +
      `lower --max-total-tokens to at most ${possible * pageSize}`,
  );
}

function pageBytes({ pageSize, bytesPerToken }: KvDemand): number {
  return pageSize * bytesPerToken;
}

function wantedPages(tokens: number, pageSize: number): number {
  return Math.max(1, Math.floor(tokens / pageSize));
}

/** Bytes that may still be taken for weights, buffers and KV cache. */
function staticBudget({ total, free }: DeviceMemory, fraction: number): number {
  return total * fraction - (total - free);
}

function othersUse(bytes: number): string {
  return bytes > 0 ? ` and the ${gib(bytes)} that are in use already` : '';
}

function gib(bytes: number): string {
  return `${(bytes / 2 ** 30).toFixed(2)} GiB`;
}

function outOfMemory(message: string): DetinferError {
  return new DetinferError('OUT_OF_MEMORY', message);
}
