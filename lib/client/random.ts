/**
 * Seeded pseudo-random numbers (mulberry32) for workloads that must be the same in every run. Not for sampling tokens:
 * that noise is the numeric contract's.
 */
export class SeededRandom {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** Uniform in [0, 1). */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let bits = this.#state;
    bits = Math.imul(bits ^ (bits >>> 15), bits | 1);
    bits ^= bits + Math.imul(bits ^ (bits >>> 7), bits | 61);
    return ((bits ^ (bits >>> 14)) >>> 0) / 2 ** 32;
  }

  /** Uniform among the whole numbers low … high, both included. */
  integer(low: number, high: number): number {
    return low + Math.floor(this.next() * (high - low + 1));
  }

  pick<T>(items: readonly T[]): T {
    if (items.length === 0) throw new RangeError('nothing to pick from');
    return items[this.integer(0, items.length - 1)] as T;
  }

  /** A new array with the same items in random order. */
  shuffle<T>(items: readonly T[]): T[] {
    const result = [...items];
    for (let i = result.length - 1; i > 0; i--) {
      const j = this.integer(0, i);
      [result[i], result[j]] = [result[j] as T, result[i] as T];
    }
    return result;
  }

  /** `count` token ids below `vocabSize`. */
  tokenIds(count: number, vocabSize: number): number[] {
    return Array.from({ length: count }, () => this.integer(0, vocabSize - 1));
  }

  /** Waiting time until the next event of a Poisson process, in seconds. */
  exponential(eventsPerSecond: number): number {
    return -Math.log(1 - this.next()) / eventsPerSecond;
  }
}
