#!/usr/bin/env node
// Runs a small case of each family of CUDA kernels under the tools of NVIDIA's compute-sanitizer, which find accesses out of
// bounds, races in shared memory and misused barriers, and says for each what it found. On a machine with a GPU, after a
// build.
//   node scripts/sanitize.mjs [racecheck memcheck synccheck, all by default]
import { spawn } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const TESTS = join(ROOT, 'build', 'Release', 'detinfer_cuda_tests');
/** The slowest first. */
const TOOLS = ['racecheck', 'memcheck', 'synccheck'];
const BACKENDS = ['fa3', 'flashinfer', 'triton'];
const FAMILIES = [
  'linear',
  'moe',
  'moe, few rows',
  'small ops',
  'sampler',
  ...BACKENDS.map((backend) => `attention ${backend}`),
  ...BACKENDS.map((backend) => `rope and attention ${backend}`),
];
const LIMIT_SECONDS = 60;
/** Characters of a tool's report. */
const SHOWN = 4000;
const AT_ONCE = Math.min(FAMILIES.length, availableParallelism());

/** The program, on PATH or in a toolkit. */
function findSanitizer() {
  const toolkits = existsSync('/usr/local') ? readdirSync('/usr/local').filter((name) => name.startsWith('cuda')) : [];
  const folders = [
    ...(process.env.PATH ?? '').split(':'),
    ...toolkits.flatMap((name) => [join('/usr/local', name, 'bin'), join('/usr/local', name, 'compute-sanitizer')]),
  ];
  const program = folders.map((folder) => join(folder, 'compute-sanitizer')).find(existsSync);
  if (program !== undefined) return program;
  throw new Error('compute-sanitizer is neither on PATH nor in /usr/local/cuda*: install it, it comes with CUDA');
}

/** @returns {Promise<{ isClean: boolean, text: string }>} */
function check(sanitizer, tool, family) {
  const start = Date.now();
  const filter = `cuda ${family}/a small case`;
  const command = ['--tool', tool, '--error-exitcode', '1', TESTS, filter];
  const child = spawn(sanitizer, command, { cwd: ROOT, detached: true });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => (output += data));
  const timer = setTimeout(() => process.kill(-child.pid, 'SIGKILL'), LIMIT_SECONDS * 1000);
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code) => {
      clearTimeout(timer);
      const seconds = ((Date.now() - start) / 1000).toFixed(0);
      const isClean = code === 0 && /1 passed, 0 failed/.test(output);
      const found = code === null ? `not done after ${LIMIT_SECONDS} s` : `exit code ${code}`;
      const verdict = `${tool}, ${family}: ${isClean ? 'clean' : found} (${seconds} s)`;
      resolve({ isClean, text: isClean ? verdict : `${verdict}\n${output.slice(0, SHOWN)}` });
    });
  });
}

const tools = process.argv.length > 2 ? process.argv.slice(2) : TOOLS;
for (const tool of tools) {
  if (!TOOLS.includes(tool)) throw new Error(`there is no tool '${tool}'; name ${TOOLS.join(', ')}`);
}
const sanitizer = findSanitizer();
const queue = tools.flatMap((tool) => FAMILIES.map((family) => [tool, family]));
let dirty = 0;
const work = async () => {
  for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
    const { isClean, text } = await check(sanitizer, ...next);
    if (!isClean) dirty += 1;
    console.log(text);
  }
};
await Promise.all(Array.from({ length: AT_ONCE }, work));
console.log(`${tools.length * FAMILIES.length - dirty} clean, ${dirty} not`);
process.exitCode = dirty === 0 ? 0 : 1;
