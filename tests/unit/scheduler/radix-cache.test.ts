import assert from 'node:assert/strict';
import { describe, expect, test } from '@jest/globals';
import { PagePool } from '../../../lib/scheduler/page-pool.js';
import { RadixCache, ROOT } from '../../../lib/scheduler/radix-cache.js';
import { Random } from './random.js';

const PAGE_SIZE = 2;

function setUp(pages = 8): { pool: PagePool; cache: RadixCache; add: (tokens: number[]) => number[] } {
  const pool = new PagePool(pages);
  const cache = new RadixCache(pool, PAGE_SIZE);
  /** Caches all full pages of `tokens`, as a sequence that computes them would; their path comes back locked. */
  const add = (tokens: number[]): number[] => {
    const path: number[] = [];
    for (let start = 0; start + PAGE_SIZE <= tokens.length; start += PAGE_SIZE) {
      const own = pool.take();
      const page = cache.insert(path.at(-1) ?? ROOT, Int32Array.from(tokens), start, own);
      if (page !== own) pool.release(own);
      path.push(page);
    }
    return path;
  };
  return { pool, cache, add };
}

const match = (cache: RadixCache, tokens: number[], maxPages = 100): number[] =>
  cache.match(Int32Array.from([...tokens, ...new Array<number>(200).fill(-9)]), maxPages);

describe('RadixCache', () => {
  test('matches the longest prefix of full pages, up to the limit', () => {
    const { cache, add } = setUp();
    const path = add([1, 2, 3, 4, 5, 6, 7]);
    expect(path).toHaveLength(3);
    expect(match(cache, [1, 2, 3, 4, 5, 6, 7])).toEqual(path);
    expect(match(cache, [1, 2, 3, 4, 5, 6], 2)).toEqual(path.slice(0, 2));
    expect(match(cache, [1, 2, 3, 4, 5, 9])).toEqual(path.slice(0, 2));
    expect(match(cache, [1, 2, 3])).toEqual(path.slice(0, 1));
    expect(match(cache, [3, 4])).toEqual([]);
    expect(match(cache, [1, 2], 0)).toEqual([]);
  });

  test('tells the same tokens under different prefixes apart', () => {
    const { cache, add } = setUp();
    const one = add([1, 1, 7, 7]);
    const two = add([2, 2, 7, 7]);
    expect(match(cache, [1, 1, 7, 7])).toEqual(one);
    expect(match(cache, [2, 2, 7, 7])).toEqual(two);
    expect(one[1]).not.toBe(two[1]);
  });

  test('keeps one page per content', () => {
    const { pool, cache, add } = setUp();
    const first = add([1, 2, 3, 4]);
    expect(add([1, 2, 3, 4])).toEqual(first);
    expect(cache.size).toBe(2);
    expect(pool.free).toBe(6);
  });

  test('a match changes nothing', () => {
    const { cache, add } = setUp();
    const [old] = add([1, 2]);
    const [recent] = add([3, 4]);
    cache.unlock([old!]);
    cache.unlock([recent!]);
    match(cache, [1, 2]);
    cache.evict(1);
    expect(match(cache, [1, 2])).toEqual([]);
    expect(match(cache, [3, 4])).toEqual([recent]);
  });

  test('evicts what was given up first, leaves before their parents', () => {
    const { cache, add } = setUp();
    const long = add([1, 2, 3, 4, 5, 6]);
    const short = add([1, 2, 7, 8]);
    cache.unlock(long);
    cache.unlock(short);
    expect(cache.evictable).toBe(4);
    cache.evict(1);
    expect(match(cache, [1, 2, 3, 4, 5, 6])).toEqual(long.slice(0, 2));
    cache.evict(1);
    expect(match(cache, [1, 2, 3, 4])).toEqual(long.slice(0, 1));
    cache.evict(1);
    expect(match(cache, [1, 2, 7, 8])).toEqual(short.slice(0, 1));
  });

  test('using a page makes it the most recent one', () => {
    const { cache, add } = setUp();
    const one = add([1, 2]);
    const two = add([3, 4]);
    cache.unlock(one);
    cache.unlock(two);
    cache.lock(one);
    cache.unlock(one);
    cache.evict(1);
    expect(match(cache, [1, 2])).toEqual(one);
    expect(match(cache, [3, 4])).toEqual([]);
  });

  test('never evicts a locked page', () => {
    const { pool, cache, add } = setUp(3);
    const path = add([1, 2, 3, 4]);
    expect(cache.countUnlocked(path)).toBe(0);
    expect(() => cache.evict(1)).toThrow('cannot evict 1 pages: 0 are unused');
    cache.lock(path.slice(0, 1));
    cache.unlock(path);
    expect(cache.countUnlocked(path)).toBe(1);
    cache.evict(1);
    expect(() => cache.evict(1)).toThrow();
    expect(match(cache, [1, 2, 3, 4])).toEqual(path.slice(0, 1));
    expect(pool.free).toBe(2);
  });

  test('refuses to unlock or lock what nobody holds', () => {
    const { cache, add } = setUp();
    const path = add([1, 2]);
    cache.unlock(path);
    expect(() => cache.unlock(path)).toThrow('was unlocked, but nobody holds it');
    cache.evict(1);
    expect(() => cache.lock(path)).toThrow('is not in the prefix cache');
  });

  test('agrees with a naive model over random histories', () => {
    for (let seed = 0; seed < 300; seed++) runHistory(new Random(seed), seed);
  });
});

/** The cache as a plain list of prefixes; the least recently given up leaf is found by looking at all. */
class NaiveCache {
  readonly entries = new Map<string, { tokens: number[]; locks: number; givenUp: number }>();
  private clock = 0;

  use(tokens: number[]): void {
    for (let end = PAGE_SIZE; end <= tokens.length; end += PAGE_SIZE) {
      const prefix = tokens.slice(0, end);
      const entry = this.entries.get(prefix.join()) ?? { tokens: prefix, locks: 0, givenUp: -1 };
      entry.locks++;
      this.entries.set(prefix.join(), entry);
    }
  }

  giveUp(tokens: number[]): void {
    for (let end = tokens.length - (tokens.length % PAGE_SIZE); end > 0; end -= PAGE_SIZE) {
      const entry = this.entries.get(tokens.slice(0, end).join())!;
      entry.locks--;
      if (entry.locks === 0) entry.givenUp = this.clock++;
    }
  }

  evict(): void {
    const isParent = (parent: string): boolean => [...this.entries.keys()].some((key) => key.startsWith(`${parent},`));
    const leaves = [...this.entries].filter(([key, entry]) => entry.locks === 0 && !isParent(key));
    leaves.sort(([, a], [, b]) => a.givenUp - b.givenUp);
    this.entries.delete(leaves[0]![0]);
  }

  match(tokens: number[]): number {
    let pages = 0;
    while (
      this.entries.has(tokens.slice(0, (pages + 1) * PAGE_SIZE).join()) &&
      (pages + 1) * PAGE_SIZE <= tokens.length
    ) {
      pages++;
    }
    return pages;
  }
}

function runHistory(random: Random, seed: number): void {
  const { pool, cache, add } = setUp(60);
  const naive = new NaiveCache();
  const held: { tokens: number[]; path: number[] }[] = [];
  const randomTokens = (): number[] => random.list(random.integer(0, 9), () => random.integer(0, 1));
  for (let step = 0; step < 80; step++) {
    if (random.chance(0.5) && pool.free >= 5) {
      const tokens = randomTokens();
      held.push({ tokens, path: add(tokens) });
      naive.use(tokens);
    } else if (random.chance(0.6) && held.length > 0) {
      const [{ tokens, path }] = held.splice(random.integer(0, held.length - 1), 1) as [(typeof held)[0]];
      cache.unlock(path);
      naive.giveUp(tokens);
    } else if (cache.evictable > 0) {
      cache.evict(1);
      naive.evict();
    }
    const probe = randomTokens();
    assert.equal(match(cache, probe).length, naive.match(probe), `seed ${seed}, step ${step}`);
    assert.equal(cache.size, naive.entries.size);
    assert.equal(cache.evictable, [...naive.entries.values()].filter(({ locks }) => locks === 0).length);
    assert.equal(pool.free + cache.size, pool.size);
  }
  for (const { tokens } of held) assert.equal(match(cache, tokens).length, Math.floor(tokens.length / PAGE_SIZE));
}
