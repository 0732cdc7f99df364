import { afterEach, beforeEach, describe, expect, jest, test } from '@jest/globals';
import { Watchdog } from '../../../lib/worker/watchdog.js';

let asked: number;
let silences: number;
let watchdog: Watchdog;

beforeEach(() => {
  jest.useFakeTimers();
  asked = 0;
  silences = 0;
  watchdog = new Watchdog(
    1000,
    () => asked++,
    () => silences++,
  );
});

afterEach(() => {
  watchdog.stop();
  jest.useRealTimers();
});

describe('Watchdog', () => {
  test('reports silence after a question once', () => {
    jest.advanceTimersByTime(1200);
    expect(asked).toBe(1);
    expect(silences).toBe(0);
    jest.advanceTimersByTime(10_000);
    expect(silences).toBe(1);
  });

  test('is content with any sign of life', () => {
    for (let i = 0; i < 40; i++) {
      jest.advanceTimersByTime(900);
      watchdog.heard();
    }
    expect(asked).toBeGreaterThan(20);
    expect(silences).toBe(0);
  });

  test('waits out a limit beyond the range of timers', () => {
    watchdog.stop();
    const never = (): never => {
      throw new Error('it did not wait');
    };
    watchdog = new Watchdog(1e12, never, never);
    jest.advanceTimersByTime(60_000);
  });

  test('says nothing after it was stopped', () => {
    watchdog.stop();
    jest.advanceTimersByTime(10_000);
    expect([asked, silences]).toEqual([0, 0]);
  });
});
