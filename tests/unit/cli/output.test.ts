import { describe, expect, test } from '@jest/globals';
import { curlExample } from '../../../lib/cli/banner.js';
import { formatBytes } from '../../../lib/cli/format.js';
import { timestamp } from '../../../lib/cli/log.js';
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

  test('without a terminal, weights are reported once per quarter', () => {
    const lines: string[] = [];
    const log: Log = (_level, message) => lines.push(message);
    const progress = createWeightProgress({ isTTY: false } as NodeJS.WriteStream, log);
    for (const done of [0, 10, 25, 26, 74, 75, 99, 100]) progress.update(done * 1000, 100_000);
    progress.stop();
    expect(lines).toEqual([25, 50, 75, 100].map((percent) => `Loading weights: ${percent}% of 100.0 kB`));
  });

  test('the curl example sends ids where there is no tokenizer', () => {
    const args = toServerArgs({}, '/demo');
    expect(curlExample('http://127.0.0.1:1', args)).toContain(`-d '{"text":"Tell me a joke"`);
    expect(curlExample('http://127.0.0.1:1', { ...args, skipTokenizerInit: true })).toContain(`-d '{"input_ids":[1,2,3]`);
  });
});
