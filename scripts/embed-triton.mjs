#!/usr/bin/env node
// Writes the compiled Triton kernels (scripts/compile-triton.py) as a C++ source, for binding.gyp.
//   node scripts/embed-triton.mjs OUTPUT.cpp
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const SOURCES = join('cuda', 'attention', 'triton');
const KERNELS = join(SOURCES, 'kernels');
const COMPILER = join('scripts', 'compile-triton.py');

/** The types of arguments that the launcher in cuda/attention/triton knows. */
const ARGUMENT_TYPES = { '*': 'p', i32: 'i', i64: 'l', fp32: 'f', tensormap: 'm' };

/**
 * What does not fit together of the Triton sources, the manifest and the cubins.
 * @param {string} root a folder of the project
 * @returns {string[]} problems, each with what to do
 */
export function findProblems(root) {
  const manifest = readManifest(root);
  const problems = [];
  const compare = (path, expected) => {
    const isSame = existsSync(join(root, path)) && sha256(readFileSync(join(root, path))) === expected;
    if (!isSame) problems.push(`${path} is not what ${KERNELS}/manifest.json was made from: run ${COMPILER}`);
  };
  const compareNames = (folder, extension, known) => {
    const names = readdirSync(join(root, folder)).filter((name) => name.endsWith(extension));
    for (const path of names.map((name) => join(folder, name))) {
      if (!known.includes(path)) problems.push(`${path} is not in the manifest: run ${COMPILER}`);
    }
  };
  const cubins = Object.entries(manifest.kernels).map(([name, { cubinSha256 }]) => [cubinPath(name), cubinSha256]);
  for (const [path, hash] of [...Object.entries(manifest.sources), ...cubins]) compare(path, hash);
  compareNames(SOURCES, '.py', Object.keys(manifest.sources));
  compareNames(KERNELS, '.cubin', cubins.map(([path]) => path));
  return problems;
}

function readManifest(root) {
  return JSON.parse(readFileSync(join(root, KERNELS, 'manifest.json'), 'utf8'));
}

function cubinPath(name) {
  return join(KERNELS, `${name}.cubin`);
}

function sha256(data) {
  return createHash('sha256').update(data).digest('hex');
}

/** The definitions of cuda/attention/triton/compiled.h. */
function toSource() {
  const kernels = Object.entries(readManifest(ROOT).kernels);
  const arrays = kernels.map(([name]) => {
    const bytes = [...readFileSync(join(ROOT, cubinPath(name)))];
    return `alignas(16) const unsigned char ${name}[] = {${bytes.join(',')}};\n`;
  });
  const rows = kernels.map(([name, kernel]) => {
    const types = Object.values(kernel.arguments).map((type) => ARGUMENT_TYPES[type.startsWith('*') ? '*' : type]);
    const sizes = `${kernel.numWarps}, ${kernel.sharedBytes}`;
    return `    {"${name}", "${kernel.function}", ${name}, "${types.join('')}", ${sizes}},\n`;
  });
  return `// Written by scripts/embed-triton.mjs.
#include "attention/triton/compiled.h"

namespace detinfer::triton {
namespace {
${arrays.join('')}}  // namespace

const CompiledKernel kCompiledKernels[] = {
${rows.join('')}};
const size_t kCompiledKernelCount = ${kernels.length};

}  // namespace detinfer::triton
`;
}

const script = fileURLToPath(import.meta.url);
if (resolve(process.argv[1] ?? '') === script) {
  const [output] = process.argv.slice(2);
  if (output === undefined) throw new Error('usage: node scripts/embed-triton.mjs OUTPUT.cpp');
  mkdirSync(dirname(output), { recursive: true });
  writeFileSync(output, toSource());
}
