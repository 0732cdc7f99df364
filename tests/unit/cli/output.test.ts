import { describe, expect, jest, test } from '@jest/globals';
import { curlExample } from '../../../lib/cli/banner.js';
import { createDownloadDisplay, Rate } from '../../../lib/cli/download-progress.js';
import { formatBytes, formatDuration } from '../../../lib/cli/format.js';
import { createLog, timestamp } from '../../../lib/cli/log.js';
import type { Log } from '../../../lib/server/context.js';
import { createWeightProgress } from '../../../lib/cli/progress.js';
import { toServerArgs } from '../../../lib/cli/server-flags.js';

describe('output', () => {
  test('bytes in decimal units', () => {
    expect([0, 999, 1000, 13_910_696, 16_381_470_720].map(formatBytes)).toEqual(['0 B', '999 B', '1.0 kB', '13.9 MB', '16.4 GB']);
  });

  test('timestamps are local and padded', () => {
    expect(timestamp(new Date(2026, 0, 2, 3, 4, 5))).toBe('2026-01-02 03:04:05');
  });

  test('a log in JSON has one object per line, with the fields', () => {
    const lines: string[] = [];
    const write = jest.spyOn(process.stdout, 'write').mockImplementation((line) => lines.push(String(line)) > 0);
    const log = createLog('info', 'json');
    log('debug', 'not this');
    log('warning', 'two\nlines', { rid: 'x', count: 3 });
    write.mockRestore();
    expect(lines).toHaveLength(1);
    expect(lines[0]).toMatch(/^[^\n]*\n$/);
    const time = expect.stringMatching(/^\d{4}-\d\d-\d\dT.*Z$/);
    expect(JSON.parse(lines[0]!)).toEqual({ time, level: 'warning', message: 'two\nlines', rid: 'x', count: 3 });
  });

  test('without a terminal, weights are reported once per quarter', () => {
    const lines: string[] = [];
    const log: Log = (_level, message) => lines.push(message);
    const progress = createWeightProgress({ isTTY: false } as NodeJS.WriteStream, log, 'text');
    for (const done of [0, 10, 25, 26, 74, 75, 99, 100]) progress.update(done * 1000, 100_000);
    progress.stop();
    expect(lines).toEqual([25, 50, 75, 100].map((percent) => `Loading weights: ${percent}% of 100.0 kB`));
  });

  test('durations in the units that matter', () => {
    expect([0, 59.94, 61, 3599, 7830].map(formatDuration)).toEqual(['0.0 s', '59.9 s', '1 min 01 s', '59 min 59 s', '2 h 10 min']);
  });

  test('the rate of a download is that of the last seconds', () => {
    let now = 0;
    const rate = new Rate(() => now);
    expect(rate.bytesPerSecond()).toBe(0);
    for (; now < 20_000; now += 50) rate.add(now < 10_000 ? 1000 : 100);
    // 2000 bytes per second, for the fast half was long ago.
    expect(rate.bytesPerSecond()).toBeGreaterThan(1900);
    expect(rate.bytesPerSecond()).toBeLessThan(2100);
  });

  test('a download ends with a line about what came, and without one when nothing did', () => {
    const lines: string[] = [];
    const display = (): ReturnType<typeof createDownloadDisplay> =>
      createDownloadDisplay({ isTTY: false } as NodeJS.WriteStream, (_level, message) => lines.push(message));
    display().stop();
    expect(lines).toEqual([]);
    const two = display();
    two.add([{ path: 'a', size: 1000 }, { path: 'b', size: 500 }]);
    two.resume('a', 400);
    two.advance('a', 600);
    two.finish('a');
    two.stop();
    two.stop();
    expect(lines).toEqual([expect.stringMatching(/^Downloaded 600 B in .* \(.*\/s\); 1 of 2 files are complete\.$/)]);
  });

  test('the curl example sends ids where there is no tokenizer', () => {
    const args = toServerArgs({}, '/demo');
    expect(curlExample('http://127.0.0.1:1', args)).toContain(`-d '{"text":"Tell me a joke"`);
    expect(curlExample('http://127.0.0.1:1', { ...args, apiKey: 'k' })).toContain(`-H 'Authorization: Bearer YOUR_KEY'`);
    expect(curlExample('http://127.0.0.1:1', { ...args, skipTokenizerInit: true })).toContain(`-d '{"input_ids":[1,2,3]`);
  });
});
