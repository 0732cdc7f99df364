import { randomInt } from 'node:crypto';

import type { ServerArgs } from '../protocol/server-args.js';

/** The seed of requests that bring none, under --enable-deterministic-inference. */
const DETERMINISTIC_SEED = 42;

/** Gives out the seeds of requests that bring none. */
export class SeedSource {
  private next: number;

  constructor(private readonly args: Pick<ServerArgs, 'enableDeterministicInference' | 'randomSeed'>) {
    this.next = args.randomSeed ?? 0;
  }

  /**
   * A seed whose `copies` successors (itself included) are as good as unused. With --random-seed the k-th request after
   * the start always gets the same.
   */
  draw(copies: number): number {
    if (this.args.enableDeterministicInference) return DETERMINISTIC_SEED;
    if (this.args.randomSeed === null) return randomInt(2 ** 47);
    const seed = this.next;
    this.next += copies;
    return seed;
  }
}
