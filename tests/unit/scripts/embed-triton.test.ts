import { appendFileSync, cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { PACKAGE_ROOT } from '../../../lib/cli/package.js';

const SOURCES = 'cuda/attention/triton';
const COMPILER = 'scripts/compile-triton.py';

const { findProblems } = (await import(join(PACKAGE_ROOT, 'scripts', 'embed-triton.mjs'))) as {
  findProblems: (root: string) => string[];
};

describe('the compiled Triton kernels', () => {
  test('are those of the sources and of the manifest', () => {
    expect(findProblems(PACKAGE_ROOT)).toEqual([]);
  });

  describe('are found out', () => {
    let root = '';
    beforeEach(() => {
      root = mkdtempSync(join(tmpdir(), 'detinfer-triton-'));
      for (const path of [SOURCES, COMPILER]) {
        mkdirSync(dirname(join(root, path)), { recursive: true });
        cpSync(join(PACKAGE_ROOT, path), join(root, path), { recursive: true });
      }
    });
    afterEach(() => rmSync(root, { recursive: true }));

    test.each(['decode.py', 'prefill.py', 'rules.py', 'kernels/decode_128.cubin'])('when %s is changed', (name) => {
      appendFileSync(join(root, SOURCES, name), ' ');
      expect(findProblems(root)).toEqual([expect.stringContaining(`${SOURCES}/${name} is not what`)]);
    });

    test('when the options of the compiler are changed', () => {
      appendFileSync(join(root, COMPILER), ' ');
      expect(findProblems(root)).toEqual([expect.stringContaining(`${COMPILER} is not what`)]);
    });

    test('when one is missing', () => {
      rmSync(join(root, SOURCES, 'kernels/prefill_64.cubin'));
      expect(findProblems(root)).toEqual([expect.stringContaining('prefill_64.cubin is not what')]);
    });

    test.each(['new.py', 'kernels/old.cubin'])('when there is one more, %s', (name) => {
      writeFileSync(join(root, SOURCES, name), '');
      expect(findProblems(root)).toEqual([expect.stringContaining(`${name} is not in the manifest`)]);
    });
  });
});
