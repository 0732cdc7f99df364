import { describe, expect, test } from '@jest/globals';
import { PagePool } from '../../../lib/scheduler/page-pool.js';

describe('PagePool', () => {
  test('hands out every page once', () => {
    const pool = new PagePool(5);
    const taken = [1, 2, 3, 4, 5].map(() => pool.take());
    expect([...taken].sort()).toEqual([0, 1, 2, 3, 4]);
    expect(pool.free).toBe(0);
    expect(() => pool.take()).toThrow('no page is free');
  });

  test('hands out the page that was released last', () => {
    const pool = new PagePool(3);
    const [first, second] = [pool.take(), pool.take()];
    pool.release(second);
    pool.release(first);
    expect(pool.free).toBe(3);
    expect(pool.take()).toBe(first);
    expect(pool.take()).toBe(second);
  });

  test('refuses a page that nobody holds', () => {
    const pool = new PagePool(2);
    const page = pool.take();
    pool.release(page);
    expect(() => pool.release(page)).toThrow(`page ${page} was released, but nobody holds it`);
    expect(() => pool.release(2)).toThrow('page 2 was released');
    expect(() => pool.release(-1)).toThrow('page -1 was released');
    expect(pool.free).toBe(2);
  });
});
