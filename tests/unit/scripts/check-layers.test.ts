import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { PACKAGE_ROOT } from '../../../lib/cli/package.js';

/** A small tree that keeps every law. */
const GOOD = {
  'binding.gyp': '{ # never -ffast-math\n "cflags": ["-ffp-contract=off"] }\n',
  'lib/protocol/data.ts': 'export const data = 1;\n',
  'lib/engine/types.ts': 'export interface Engine { x: number }\n',
  'lib/engine/load-addon.ts': "import { data } from '../protocol/data.js';\nexport const addon = data;\n",
  'lib/worker/supervisor.ts': "import type { addon } from '../engine/load-addon.js';\nexport type Addon = typeof addon;\n",
  'lib/worker/main.ts': "import { addon } from '../engine/load-addon.js';\naddon.toFixed();\n",
  'lib/server/server.ts': "import { data } from '../protocol/data.js';\nimport '../worker/supervisor.js';\nexport { data };\n",
  'cuda/core/error.h': '#include <string>\n',
  'cuda/kernels/norm/norm.cpp': '// unlike -ffast-math\n#include "core/error.h"\n',
  'cuda/kernels/norm/norm.cu': '#include <cuda_runtime.h>\n#include "core/error.h"\n',
  'cuda/addon/addon.cpp': '#include <napi.h>\n#include "core/error.h"\n',
};

let root = '';
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'detinfer-layers-'));
});
afterEach(() => rmSync(root, { recursive: true }));

function check(changes: Record<string, string>): { code: number | null; problems: string[] } {
  for (const [path, text] of Object.entries({ ...GOOD, ...changes })) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), text);
  }
  const script = join(PACKAGE_ROOT, 'scripts', 'check-layers.mjs');
  const { status, stderr } = spawnSync(process.execPath, [script, root], { encoding: 'utf8' });
  return { code: status, problems: stderr.split('\n').filter((line) => line !== '') };
}

describe('check-layers', () => {
  test('accepts a tree that keeps the laws', () => {
    expect(check({})).toEqual({ code: 0, problems: [] });
  });

  test.each([
    ['an upward import', { 'lib/protocol/data.ts': "import '../engine/types.js';\n" }, 'lib/protocol may not import lib/engine'],
    ['an upward type import', { 'lib/protocol/data.ts': "import type { Engine } from '../engine/types.js';\n" }, 'may not import'],
    ['an upward re-export', { 'lib/protocol/data.ts': "export * from '../engine/types.js';\n" }, 'may not import'],
    ['an upward dynamic import', { 'lib/protocol/data.ts': "await import('../engine/types.js');\n" }, 'may not import'],
    ['a sideways import', { 'lib/server/server.ts': "import type {} from '../engine/types.js';\n" }, 'lib/server may not import lib/engine'],
    ['the addon in the server, indirectly', { 'lib/server/server.ts': "import '../worker/main.js';\n" }, 'the server process would load the addon'],
    ['an import from outside', { 'lib/server/server.ts': "import '../../scripts/x.js';\n" }, 'outside lib/'],
    ['a missing import', { 'lib/server/server.ts': "import './gone.js';\n" }, 'does not exist'],
    ['an unknown layer', { 'lib/misc/a.ts': '' }, 'lib/misc is no known layer'],
    ['an upward include', { 'cuda/core/error.h': '#include "kernels/norm/norm.h"\n', 'cuda/kernels/norm/norm.h': '' }, 'cuda/core may not include cuda/kernels'],
    ['a relative include', { 'cuda/kernels/norm/norm.cpp': '#include "norm.h"\n', 'cuda/kernels/norm/norm.h': '' }, 'relative to cuda/'],
    ['Node-API outside the addon', { 'cuda/core/error.h': '#include <napi.h>\n' }, 'only cuda/addon and cuda/system may include napi.h'],
    ['CUDA in a host file', { 'cuda/kernels/norm/norm.cpp': '#include <cuda_runtime.h>\n' }, 'only .cu and .cuh files'],
    ['fast math in the build', { 'binding.gyp': '{ "cflags": ["-O3", "-ffast-math"] }\n' }, '-ffast-math would change the bits'],
    ['contraction in the build', { 'binding.gyp': '{ "cflags": ["-ffp-contract=fast"] }\n' }, '-ffp-contract=fast'],
    ['fast math in a source', { 'cuda/kernels/norm/norm.cpp': '__attribute__((optimize("fast-math"))) void f();\n' }, 'fast-math'],
    ['contraction in a source', { 'cuda/kernels/norm/norm.cpp': '#pragma STDC FP_CONTRACT ON\n' }, 'FP_CONTRACT ON'],
    ['fast math in a script', { 'scripts/build.mjs': "run(['nvcc', '--use_fast_math']);\n" }, '--use_fast_math'],
  ])('refuses %s', (_name, changes, message) => {
    const { code, problems } = check(changes as Record<string, string>);
    expect(code).toBe(1);
    expect(problems).toHaveLength(1);
    expect(problems[0]).toContain(message);
  });
});
