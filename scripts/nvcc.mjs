#!/usr/bin/env node
// Compiles one .cu file for binding.gyp, unless its object is newer than everything that it included last time: a rule of
// gyp can only say that every file depends on every header.
//   node scripts/nvcc.mjs NVCC source.cu object.o [flags of nvcc …]
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, statSync, utimesSync } from 'node:fs';
import { dirname } from 'node:path';

const [nvcc, source, object, ...flags] = process.argv.slice(2);
const dependencies = `${object}.d`;
const command = [...flags, '-MD', '-MF', dependencies, '-c', source, '-o', object];

function modified(path) {
  return existsSync(path) ? statSync(path).mtimeMs : Infinity;
}

function isFresh() {
  if (!existsSync(object) || !existsSync(dependencies)) return false;
  // "object : source.cu header.h …", with a line's end escaped.
  const [, list] = /:\s([^]*)/.exec(readFileSync(dependencies, 'utf8'));
  const files = list.replace(/\\\n/g, ' ').split(/\s+/).filter(Boolean);
  const built = statSync(object).mtimeMs;
  // In a copy of the project it names the files of the original, which say nothing about this one's.
  return files.includes(source) && files.every((file) => modified(file) < built) && modified('binding.gyp') < built;
}

if (isFresh()) {
  const now = new Date();
  utimesSync(object, now, now);
} else {
  mkdirSync(dirname(object), { recursive: true });
  const { status, error } = spawnSync(nvcc, command, { stdio: 'inherit' });
  if (error) throw error;
  process.exitCode = status ?? 1;
}
