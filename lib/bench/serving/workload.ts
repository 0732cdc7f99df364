import { SeededRandom } from '../../client/random.js';
import type { PlannedRequest, ServingOptions } from './types.js';

/** Random prompts, lengths and arrivals; the same for the same options. */
export function planWorkload(options: ServingOptions, vocabSize: number): PlannedRequest[] {
  const random = new SeededRandom(options.seed);
  const length = (longest: number): number => {
    return random.integer(Math.max(1, Math.floor(longest * options.randomRangeRatio)), longest);
  };
  let arrival = 0;
  return Array.from({ length: options.numPrompts }, () => {
    const request = {
      inputIds: random.tokenIds(length(options.randomInputLen), vocabSize),
      outputLength: length(options.randomOutputLen),
      arrival,
    };
    if (options.requestRate !== null) arrival += random.exponential(options.requestRate);
    return request;
  });
}
