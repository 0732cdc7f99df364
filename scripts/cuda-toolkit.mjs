#!/usr/bin/env node
// Prints where a part of the CUDA toolkit is, or `none` where there is no toolkit of 12.3 or later: binding.gyp asks.
//   node scripts/cuda-toolkit.mjs nvcc|cudart
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';

const NVCC = process.env.NVCC ?? 'nvcc';
/** wgmma with its descriptors, and programmatic dependent launches in graphs. */
const OLDEST = [12, 3];
const LIBRARY_FOLDERS = ['lib64', 'lib', 'targets/x86_64-linux/lib'];

function isNewEnough() {
  const { status, stdout } = spawnSync(NVCC, ['--version'], { encoding: 'utf8' });
  if (status !== 0) return false;
  const [, major, minor] = /release (\d+)\.(\d+)/.exec(stdout) ?? [];
  return Number(major) > OLDEST[0] || (Number(major) === OLDEST[0] && Number(minor) >= OLDEST[1]);
}

/** The static runtime, so that the engine starts where there is a driver and no toolkit. */
function findCudart() {
  const { stderr } = spawnSync(NVCC, ['-dryrun', '-x', 'cu', '/dev/null'], { encoding: 'utf8' });
  const [, top] = /^#\$ TOP=(.*)$/m.exec(stderr) ?? [];
  const files = LIBRARY_FOLDERS.map((folder) => join(top ?? '/usr/local/cuda', folder, 'libcudart_static.a'));
  return files.find((file) => existsSync(file)) ?? 'none';
}

const part = process.argv[2];
const found = isNewEnough() ? { nvcc: NVCC, cudart: findCudart() } : { nvcc: 'none', cudart: 'none' };
if (!(part in found)) throw new Error(`there is no part '${part}'; ask for nvcc or cudart`);
console.log(found[part]);
