import { describe, expect, jest, test } from '@jest/globals';
import { curlExample } from '../../../lib/cli/banner.js';
import { formatBytes } from '../../../lib/cli/format.js';
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

  test('the curl example sends ids where there is no tokenizer', () => {
    const args = toServerArgs({}, '/demo');
    expect(curlExample('http://127.0.0.1:1', args)).toContain(`-d '{"text":"Tell me a joke"`);
    expect(curlExample('http://127.0.0.1:1', { ...args, apiKey: 'k' })).toContain(`-H 'Authorization: Bearer YOUR_KEY'`);
    expect(curlExample('http://127.0.0.1:1', { ...args, skipTokenizerInit: true })).toContain(`-d '{"input_ids":[1,2,3]`);
  });
});
