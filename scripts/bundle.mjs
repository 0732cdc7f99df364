#!/usr/bin/env node
// Packs what is built here into one archive that runs elsewhere without an installation or a network: this node, the
// addons that exist, the production dependencies and the demo model. Build first (npm run build).
//   node scripts/bundle.mjs [--out FOLDER] [--fast]     --fast: gzip instead of xz; FOLDER is build/ if not given
// There: tar xf detinfer-….tar.xz && ./detinfer/bin/detinfer launch
// It runs on Linux of the same architecture with a glibc no older than the one that the addons were built with.
import { spawnSync } from 'node:child_process';
import { chmodSync, cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join, relative, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { ROOT } from './prepare.mjs';

/** A bundle has to travel; this is what fits. */
const LIMIT_BYTES = 60 * 2 ** 20;

/** What the project is made of at run time. The addons are added as they exist. */
const FILES = ['bin/detinfer.js', 'dist/lib', 'models/demo', 'package.json', 'LICENSE', 'README.md', 'CHANGELOG.md'];
const NATIVE = ['detinfer_system.node', 'detinfer_cpu.node', 'detinfer_cuda.node', 'detinfer_bench'];

/** Dependencies that only build. */
const BUILD_ONLY = new Set(['node-gyp', 'node-addon-api']);

/** What packages ship beside what runs; folders count at the top of a package alone. */
const UNUSED_FILES = /\.(?:map|[cm]?ts|tsx|md|markdown|flow|txt)$|^\.|^(?:yarn\.lock|tsconfig.*\.json)$/i;
const UNUSED_FOLDERS = new Set(['test', 'tests', '__tests__', 'doc', 'docs', 'example', 'examples', 'benchmark', 'benchmarks']);

/** $0 may be a link; readlink is all that it needs of the machine. */
const LAUNCHER = `#!/bin/sh
here=$(readlink -f "$0")
here=\${here%/*}
exec "$here/node" "$here/detinfer.js" "$@"
`;

function copyProject(target) {
  for (const path of FILES) {
    cpSync(join(ROOT, path), join(target, path), { recursive: true, filter: (from) => !from.endsWith('.map') });
  }
  const release = join('build', 'Release');
  mkdirSync(join(target, release), { recursive: true });
  const native = NATIVE.filter((name) => existsSync(join(ROOT, release, name)));
  for (const name of native) {
    cpSync(join(ROOT, release, name), join(target, release, name));
    strip(join(target, release, name));
  }
  return native;
}

/** The running node and a launcher that needs no other. */
function copyNode(target) {
  const node = join(target, 'bin', 'node');
  cpSync(process.execPath, node, { dereference: true });
  strip(node);
  const launcher = join(target, 'bin', 'detinfer');
  writeFileSync(launcher, LAUNCHER);
  chmodSync(launcher, 0o755);
  const prefix = dirname(dirname(process.execPath));
  const licence = [join(prefix, 'LICENSE'), join(prefix, 'share', 'doc', 'nodejs', 'LICENSE')].find(existsSync);
  if (licence !== undefined) cpSync(licence, join(target, 'bin', 'node.LICENSE'));
}

/** Drops symbols; those that an addon or node itself is linked by stay. */
function strip(file) {
  const { error, status, stderr } = spawnSync('strip', [file], { encoding: 'utf8' });
  if (error !== undefined) console.warn(`strip is not there (${error.message}): the bundle is larger than need be`);
  else if (status !== 0) throw new Error(`strip ${file} failed: ${stderr}`);
}

/** Folders of the installed packages that run, found as node resolves them. */
function productionPackages() {
  const found = new Set();
  const visit = (name, from, isOptional) => {
    const folder = findPackage(name, from);
    if (folder === undefined) {
      if (isOptional) return;
      throw new Error(`${name}, which ${relative(ROOT, from) || 'detinfer'} needs, is not installed: run npm ci`);
    }
    if (found.has(folder)) return;
    found.add(folder);
    visitAll(folder, readManifest(folder));
  };
  const visitAll = (folder, { dependencies = {}, optionalDependencies = {} }) => {
    for (const name of Object.keys({ ...dependencies, ...optionalDependencies })) {
      if (folder === ROOT && BUILD_ONLY.has(name)) continue;
      visit(name, folder, name in optionalDependencies);
    }
  };
  visitAll(ROOT, readManifest(ROOT));
  return [...found].sort();
}

function findPackage(name, from) {
  for (let folder = from; folder.startsWith(ROOT); folder = dirname(folder)) {
    const candidate = join(folder, 'node_modules', name);
    if (existsSync(join(candidate, 'package.json'))) return candidate;
  }
  return undefined;
}

function readManifest(folder) {
  return JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
}

function copyPackage(folder, target) {
  const copy = (path) => {
    for (const entry of readdirSync(path, { withFileTypes: true })) {
      const from = join(path, entry.name);
      const isUnused = entry.isDirectory()
        ? entry.name === 'node_modules' || (path === folder && UNUSED_FOLDERS.has(entry.name))
        : UNUSED_FILES.test(entry.name) && !/^licen[cs]e|^notice/i.test(entry.name);
      if (isUnused) continue;
      if (entry.isDirectory()) copy(from);
      else cpSync(from, join(target, relative(ROOT, from)));
    }
  };
  copy(folder);
}

/** Packs a folder, so that equal contents give an equal archive. */
function pack(parent, name, archive, compressor) {
  const stable = ['--sort=name', '--mtime=@0', '--owner=0', '--group=0', '--numeric-owner'];
  const args = [...stable, `--use-compress-program=${compressor}`, '-cf', archive, '-C', parent, name];
  const { error, status } = spawnSync('tar', args, { stdio: 'inherit' });
  if (error !== undefined) throw error;
  if (status !== 0) throw new Error(`tar failed; is ${compressor} there (Debian: apt-get install xz-utils)?`);
}

function main() {
  const { values } = parseArgs({ options: { out: { type: 'string' }, fast: { type: 'boolean', default: false } } });
  const missing = [...FILES, 'build/Release/detinfer_cpu.node'].find((path) => !existsSync(join(ROOT, path)));
  if (missing !== undefined) throw new Error(`${missing} is missing: run npm run build`);
  const out = resolve(values.out ?? join(ROOT, 'build'));
  const archive = join(out, `detinfer-${readManifest(ROOT).version}-linux-${process.arch}.tar.${values.fast ? 'gz' : 'xz'}`);
  const scratch = mkdtempSync(join(tmpdir(), 'detinfer-bundle-'));
  try {
    const target = join(scratch, 'detinfer');
    const native = copyProject(target);
    copyNode(target);
    const packages = productionPackages();
    for (const folder of packages) copyPackage(folder, target);
    mkdirSync(out, { recursive: true });
    pack(scratch, basename(target), archive, values.fast ? 'gzip -1' : 'xz -9');
    const { size } = statSync(archive);
    console.log(`${archive}: ${(size / 2 ** 20).toFixed(1)} MiB, node ${process.version}, ${native.join(', ')}, ${packages.length} packages`);
    if (!values.fast && size > LIMIT_BYTES) throw new Error(`it is larger than ${LIMIT_BYTES / 2 ** 20} MiB`);
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

try {
  main();
} catch (error) {
  console.error(`The bundle failed: ${error.message}`);
  process.exitCode = 1;
}
