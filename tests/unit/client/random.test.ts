import { describe, expect, test } from '@jest/globals';
import { SeededRandom } from '../../../lib/client/random.js';

describe('SeededRandom', () => {
  test('repeats itself for a seed and differs between seeds', () => {
    const draw = (seed: number): number[] => new SeededRandom(seed).tokenIds(20, 1000);
    expect(draw(1)).toEqual(draw(1));
    expect(draw(1)).not.toEqual(draw(2));
    // Pinned, so that what a test sent last year can be sent again.
    expect(draw(42).slice(0, 4)).toEqual([601, 448, 852, 669]);
  });

  test('integers cover both ends evenly', () => {
    const random = new SeededRandom(3);
    const counts = new Array<number>(5).fill(0);
    for (let i = 0; i < 10_000; i++) {
      const value = random.integer(2, 6) - 2;
      counts[value] = (counts[value] ?? NaN) + 1;
    }
    for (const count of counts) expect(Math.abs(count - 2000)).toBeLessThan(200);
  });

  test('shuffle keeps every item and leaves the input alone', () => {
    const items = [1, 2, 3, 4, 5, 6, 7, 8];
    const shuffled = new SeededRandom(5).shuffle(items);
    expect(shuffled).not.toEqual(items);
    expect([...shuffled].sort()).toEqual(items);
    expect(items).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
  });

  test('exponential waits have the mean of their rate', () => {
    const random = new SeededRandom(7);
    let sum = 0;
    for (let i = 0; i < 10_000; i++) sum += random.exponential(4);
    expect(sum / 10_000).toBeCloseTo(0.25, 2);
  });
});
