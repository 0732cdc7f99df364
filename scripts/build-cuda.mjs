#!/usr/bin/env node
// Builds the CUDA tests and benchmarks into build/cuda with nvcc (CUDA 12.3 or later, sm_90a). Incremental. It is no part
// of `npm test`: a machine without nvcc can't build them, and one without a Hopper GPU can't run them.
//   node scripts/build-cuda.mjs [--jobs N] [--only PATTERN] [--ptxas] [tests|bench]
// --only compiles just the sources whose path contains PATTERN, without linking; --ptxas prints registers and spills.
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, readdirSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { parseArgs } from 'node:util';
import { fileURLToPath } from 'node:url';

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const OUT = join(ROOT, 'build', 'cuda');
const NVCC = process.env.NVCC ?? 'nvcc';
const ARCH = '-gencode=arch=compute_90a,code=sm_90a';
// No contraction but where fma is written: the numeric contract (docs/numerics.md).
const FLAGS = ['-O3', '-std=c++17', ARCH, '-fmad=false', '-Xcompiler', '-ffp-contract=off,-Wall,-pthread', '-Icuda', '-I.'];

/** What every program links, then the sources of each. */
const LIBRARY = ['cuda/core', 'cuda/kernels', 'cuda/attention'];
const PROGRAMS = {
  tests: { name: 'detinfer_cuda_tests', folders: ['tests/cuda'] },
  bench: { name: 'detinfer_cuda_bench', folders: ['cuda/bench'], only: /\.cu$/ },
};

function sourcesIn(folders, only = /\.(cu|cpp)$/) {
  return folders
    .filter((folder) => existsSync(join(ROOT, folder)))
    .flatMap((folder) => readdirSync(join(ROOT, folder), { recursive: true }).map((name) => join(folder, name)))
    .filter((name) => /\.(cu|cpp)$/.test(name) && only.test(name))
    .sort();
}

const objectOf = (source) => join(OUT, 'objects', `${source}.o`);

function modified(path) {
  return existsSync(path) ? statSync(path).mtimeMs : 0;
}

/** Whether the object is older than its source or a header that it included last time. */
function isStale(source) {
  const object = objectOf(source);
  const dependencies = `${object}.d`;
  if (!existsSync(object) || !existsSync(dependencies)) return true;
  // nvcc writes "object : files", gcc "object: files".
  const list = readFileSync(dependencies, 'utf8').replace(/\\\n/g, ' ').replace(/^\S+\s*:/, '');
  const files = list.split(/\s+/).filter(Boolean);
  const built = modified(object);
  return files.some((file) => !existsSync(join(ROOT, file)) && !existsSync(file) ? true : modifiedAnywhere(file) > built);
}

function modifiedAnywhere(file) {
  return file.startsWith('/') ? modified(file) : modified(join(ROOT, file));
}

function compile(source, verbose) {
  const object = objectOf(source);
  mkdirSync(dirname(object), { recursive: true });
  const language = source.endsWith('.cu') ? ['-x', 'cu'] : [];
  const report = verbose ? ['-Xptxas', '-v'] : [];
  const args = [...FLAGS, ...language, ...report, '-MD', '-MF', `${object}.d`, '-c', source, '-o', object];
  return new Promise((resolve, reject) => {
    const child = spawn(NVCC, args, { cwd: ROOT, stdio: 'inherit' });
    child.on('error', reject);
    child.on('close', (code) => (code === 0 ? resolve() : reject(new Error(`${source} does not compile`))));
  });
}

async function compileAll(sources, jobs, verbose) {
  const queue = sources.filter(isStale);
  const worker = async () => {
    for (let source = queue.shift(); source !== undefined; source = queue.shift()) {
      console.log(source);
      await compile(source, verbose);
    }
  };
  await Promise.all(Array.from({ length: jobs }, worker));
}

function link(name, sources) {
  const program = join(OUT, name);
  const objects = sources.map(objectOf);
  if (objects.every((object) => modified(object) < modified(program))) return;
  console.log(`build/cuda/${name}`);
  const args = [ARCH, '-cudart', 'static', '-Xcompiler', '-pthread', '-o', program, ...objects, '-ldl'];
  const { status } = spawnSync(NVCC, args, { cwd: ROOT, stdio: 'inherit' });
  if (status !== 0) throw new Error(`${name} does not link`);
}

async function main() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { jobs: { type: 'string', default: '1' }, only: { type: 'string' }, ptxas: { type: 'boolean', default: false } },
  });
  const jobs = Number(values.jobs);
  if (!Number.isInteger(jobs) || jobs < 1) throw new Error(`--jobs must be a positive integer, not '${values.jobs}'`);
  const unknown = positionals.find((name) => !(name in PROGRAMS));
  if (unknown !== undefined) throw new Error(`there is no program '${unknown}'; choose from ${Object.keys(PROGRAMS).join(', ')}`);
  if (spawnSync(NVCC, ['--version']).status !== 0) {
    throw new Error(`there is no CUDA compiler here ('${NVCC}'): install the CUDA toolkit or set NVCC to its nvcc`);
  }
  const library = sourcesIn(LIBRARY);
  const programs = (positionals.length > 0 ? positionals : Object.keys(PROGRAMS)).map((key) => PROGRAMS[key]);
  const all = [...new Set([...library, ...programs.flatMap((program) => sourcesIn(program.folders, program.only))])];
  const { only } = values;
  await compileAll(only === undefined ? all : all.filter((source) => source.includes(only)), jobs, values.ptxas);
  if (only !== undefined) return;
  for (const { name, folders, only: kind } of programs) link(name, [...library, ...sourcesIn(folders, kind)]);
}

main().catch((error) => {
  console.error(`The CUDA build failed: ${error.message}`);
  process.exitCode = 1;
});
