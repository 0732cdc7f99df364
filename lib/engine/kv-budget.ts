import { freemem } from 'node:os';

import { DetinferError } from '../protocol/errors.js';

/** More tokens than this help nobody on the machines that this is for; a larger cache must be asked for. */
const MAX_DEFAULT_TOKENS = 262_144;

export interface KvBudgetInput {
  /** Bytes free before the weights were loaded. */
  freeBytes: number;
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
 * Number of pages of the KV cache: as --max-total-tokens says, or what --mem-fraction-static of the free memory leaves
 * beside the weights. @throws DetinferError OUT_OF_MEMORY when they don't fit
 */
export function kvPages(input: KvBudgetInput): number {
  const { weightBytes, bytesPerToken, pageSize, maxTotalTokens, memFractionStatic } = input;
  const pageBytes = pageSize * bytesPerToken;
  if (weightBytes + pageBytes > input.freeBytes) {
    throw outOfMemory(`the weights take ${gib(weightBytes)} of ${gib(input.freeBytes)} free; choose a smaller model`);
  }
  if (maxTotalTokens !== null) {
    const pages = Math.max(1, Math.floor(maxTotalTokens / pageSize));
    const limit = input.freeBytes - weightBytes;
    if (pages * pageBytes <= limit) return pages;
    const tokens = Math.floor(limit / pageBytes) * pageSize;
    throw outOfMemory(
      `a KV cache of ${maxTotalTokens} tokens takes ${gib(pages * pageBytes)}, but beside the weights only ` +
        `${gib(limit)} are free; lower --max-total-tokens to at most ${tokens}`,
    );
  }
  const budget = input.freeBytes * memFractionStatic - weightBytes;
  if (budget < pageBytes) {
    throw outOfMemory(
      `--mem-fraction-static ${memFractionStatic} of ${gib(input.freeBytes)} free leaves no room for the KV cache ` +
        `beside weights of ${gib(weightBytes)}; raise it, or set --max-total-tokens`,
    );
  }
  return Math.max(1, Math.floor(Math.min(budget / pageBytes, MAX_DEFAULT_TOKENS / pageSize)));
}

function gib(bytes: number): string {
  return `${(bytes / 2 ** 30).toFixed(2)} GiB`;
}

function outOfMemory(message: string): DetinferError {
  return new DetinferError('OUT_OF_MEMORY', message);
}
