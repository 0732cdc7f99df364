#!/usr/bin/env node
// Builds the TypeScript into dist/ and the native engine into build/Release. Incremental: quick when nothing changed.
//   node scripts/build.mjs [--native]     --native leaves the TypeScript alone
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const require = createRequire(import.meta.url);
const JOBS = '2';

function run(script, args) {
  const env = { ...process.env, MAKEFLAGS: 's --no-print-directory' };
  const { status, error } = spawnSync(process.execPath, [script, ...args], { cwd: ROOT, stdio: 'inherit', env });
  if (error) throw error;
  if (status !== 0) throw new Error(`${script} ${args.join(' ')} failed with exit code ${status}`);
}

function filesBelow(folder) {
  if (!existsSync(join(ROOT, folder))) return [];
  return readdirSync(join(ROOT, folder), { recursive: true })
    .map((name) => join(folder, name))
    .sort();
}

function buildTypeScript() {
  // An installed package has dist/ and no sources.
  if (!existsSync(join(ROOT, 'tsconfig.json'))) return;
  run(join(dirname(require.resolve('typescript/package.json')), 'bin', 'tsc'), []);
  removeStaleOutput();
}

/** A test whose source is gone must not go on passing. */
function removeStaleOutput() {
  for (const file of filesBelow('dist')) {
    const source = file.replace(/^dist\//, '').replace(/\.js(\.map)?$/, '.ts');
    if (/\.js(\.map)?$/.test(file) && !existsSync(join(ROOT, source))) rmSync(join(ROOT, file));
  }
}

function buildNative() {
  const nodeGyp = join(dirname(require.resolve('node-gyp/package.json')), 'bin', 'node-gyp.js');
  const headers = nodeHeaders();
  // What configuring depends on: a glob in binding.gyp is expanded only then.
  const sources = ['cuda', 'tests'].flatMap(filesBelow).filter((name) => /\.(cpp|cu|cuh|h)$/.test(name));
  const gyp = readFileSync(join(ROOT, 'binding.gyp'), 'utf8');
  const state = [process.version, process.arch, process.env.NVCC ?? '', ...headers, gyp, ...sources].join('\n');
  const stamp = join(ROOT, 'build', 'configured.txt');
  if (!existsSync(stamp) || readFileSync(stamp, 'utf8') !== state) {
    rmSync(stamp, { force: true });
    run(nodeGyp, ['configure', '--release', '--loglevel=warn', ...headers]);
    mkdirSync(dirname(stamp), { recursive: true });
    writeFileSync(stamp, state);
  }
  run(nodeGyp, ['build', '--release', '--loglevel=warn', '--jobs', JOBS]);
}

/** Headers beside the running node spare a download. */
function nodeHeaders() {
  const prefix = dirname(dirname(process.execPath));
  return existsSync(join(prefix, 'include', 'node', 'node.h')) ? [`--nodedir=${prefix}`] : [];
}

try {
  if (!process.argv.includes('--native')) buildTypeScript();
  buildNative();
} catch (error) {
  console.error(`The build failed: ${error.message}`);
  process.exitCode = 1;
}
