import type { Mode } from '../context.js';
import type { ModeName } from '../types.js';
import { mixed } from './mixed.js';
import { pVsD } from './p-vs-d.js';
import { prefix } from './prefix.js';
import { radixCache } from './radix-cache.js';
import { single } from './single.js';

/** Every mode of `detinfer test`, in the order in which `all` runs them. */
export const MODES: Record<ModeName, Mode> = {
  single,
  prefix,
  radix_cache: radixCache,
  p_vs_d: pVsD,
  mixed,
};
