import { describe, expect, test } from '@jest/globals';
import { PrefixRouter } from '../../../lib/worker/prefix-router.js';

const PAGE = 4;
const prompt = (salt: number, length = 12): number[] => Array.from({ length }, (_, i) => salt * 100 + i);
const idle = [0, 1, 2].map((index) => ({ index, load: 0 }));
const loaded = (...loads: number[]) => loads.map((load, index) => ({ index, load }));

describe('PrefixRouter', () => {
  test('a known prefix beats a smaller load, the longer one beats the shorter', () => {
    const router = new PrefixRouter(3, PAGE, 100);
    expect(router.choose(prompt(1), loaded(0, 1, 1))).toBe(0);
    expect(router.choose([...prompt(1, 4), ...prompt(2)], loaded(9, 0, 1).slice(1))).toBe(1);
    expect(router.choose([...prompt(1), 7, 7, 7, 7], loaded(5, 0, 0))).toBe(0);
    expect(router.choose([...prompt(1, 4), ...prompt(2, 4)], loaded(0, 5, 0))).toBe(1);
  });

  test('less than a page is no prefix: the least loaded, and of those the first', () => {
    const router = new PrefixRouter(3, PAGE, 100);
    expect(router.choose(prompt(1, 3), idle)).toBe(0);
    expect(router.choose(prompt(1, 3), loaded(2, 1, 1))).toBe(1);
  });

  test('a prefix does not pile everything on one', () => {
    const router = new PrefixRouter(2, PAGE, 100);
    router.choose(prompt(1), loaded(0, 0));
    expect(router.choose(prompt(1), loaded(8, 0))).toBe(0);
    expect(router.choose(prompt(1), loaded(9, 0))).toBe(1);
  });

  test('what a replica has long not been sent is forgotten, and all when its cache is empty', () => {
    const router = new PrefixRouter(2, PAGE, 3);
    const only = (index: number) => [{ index, load: 0 }];
    const busy = [{ index: 0, load: 1 }, { index: 1, load: 0 }];
    router.choose(prompt(1), only(0));
    expect(router.choose(prompt(1), busy)).toBe(0);
    router.choose(prompt(2, 8), only(0));
    // The first page of the older prompt is still known.
    expect(router.choose(prompt(1, 4), busy)).toBe(0);
    router.choose(prompt(2), only(0));
    expect(router.choose(prompt(1, 4), busy)).toBe(1);
    router.forget(0);
    expect(router.choose(prompt(2), busy)).toBe(1);
  });
});
