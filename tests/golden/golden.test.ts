/**
 * Whole runs against recorded digests, on every instruction set of this machine. After a change of the numeric
 * contract, and only then: node scripts/record-golden.mjs.
 */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';

import { readJson, ROOT } from '../accuracy/engine-runs.js';
import type { Digests } from './runs.js';

const REQUIRED_FLAGS: Readonly<Record<string, string[]>> = {
  avx512: ['avx512f', 'avx512bw', 'avx512vl', 'avx512dq'],
  avx2: ['avx2', 'fma'],
  plain: [],
};

const cpuFlags = new Set(/^flags\s*:(.*)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1]?.split(' '));
const available = Object.keys(REQUIRED_FLAGS).filter((isa) => REQUIRED_FLAGS[isa]!.every((flag) => cpuFlags.has(flag)));

describe.each(available)('instruction set %s', (isa) => {
  test('reproduces the recorded digests', () => {
    const env = { ...process.env, DETINFER_CPU_ISA: isa };
    const output = execFileSync(process.execPath, [join(ROOT, 'dist', 'tests', 'golden', 'runs.js')], { env });
    const expected = readJson<Digests>(join(ROOT, 'tests', 'golden', 'golden.json'));
    expect(JSON.parse(output.toString())).toStrictEqual(expected);
  });
});
