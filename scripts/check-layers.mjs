#!/usr/bin/env node
// Fails when the code breaks a law of its architecture (docs/architecture.md): imports and includes point downward only,
// arithmetic is never reassociated by a compiler flag, and the headers of Node-API and CUDA stay in their folders.
//   node scripts/check-layers.mjs [folder]
import { existsSync, readFileSync, readdirSync, statSync } from 'node:fs';
import { dirname, extname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

/** What each folder of lib/ may import, besides itself. */
const LIB_LAYERS = {
  protocol: [],
  system: ['protocol'],
  engine: ['system', 'protocol'],
  tokenizer: ['protocol'],
  hub: ['system', 'protocol'],
  receipt: ['engine', 'protocol'],
  grammar: ['protocol'],
  scheduler: ['grammar', 'engine', 'protocol'],
  worker: ['scheduler', 'grammar', 'tokenizer', 'engine', 'system', 'protocol'],
  server: ['tokenizer', 'grammar', 'hub', 'worker', 'receipt', 'protocol'],
  audit: ['receipt', 'scheduler', 'grammar', 'tokenizer', 'engine', 'protocol'],
  client: ['protocol'],
  verify: ['client', 'protocol'],
  bench: ['client', 'engine', 'protocol'],
  cli: ['server', 'worker', 'verify', 'audit', 'receipt', 'bench', 'client', 'tokenizer', 'hub', 'scheduler', 'engine', 'system', 'protocol'],
};

/** What each folder of cuda/ may include, besides itself. */
const CUDA_LAYERS = {
  core: [],
  system: [],
  kernels: ['core'],
  attention: ['kernels', 'core'],
  layers: ['attention', 'kernels', 'core'],
  models: ['layers', 'attention', 'kernels', 'core'],
  device: ['attention', 'kernels', 'core'],
  engine: ['models', 'layers', 'attention', 'kernels', 'core'],
  addon: ['engine', 'device', 'models', 'layers', 'attention', 'kernels', 'core'],
  bench: ['engine', 'device', 'models', 'layers', 'attention', 'kernels', 'core'],
};

/** The server process must survive a crash of the engine, so nothing that it loads may load the engine's addon. */
const ADDON_LOADER = 'lib/engine/load-addon.ts';

const FAST_MATH =
  /-ffast-math|-Ofast|-funsafe-math-optimizations|-fassociative-math|-freciprocal-math|-ffinite-math-only|-fno-signed-zeros|-ffp-contract=(?:fast|on)|--?use_fast_math|--?fmad=true|--?ftz=true|--?prec-(?:div|sqrt)=false|FP_CONTRACT\s+ON|FP_REASSOCIATE\s+ON|fast-math"/;

const NODE_API_LAYERS = new Set(['addon', 'system']);
const NODE_API_HEADER = /^(?:napi(?:-inl)?|node_api|js_native_api|node|v8)\.h$/;
const CUDA_HEADER = /^(?:cuda\w*|cooperative_groups|mma|cublas\w*|nccl)\.h$/;

/** @returns {{checked: number, problems: string[]}} */
export function checkLayers(root) {
  const sources = ['lib', 'cuda', 'bin', 'scripts'].flatMap((folder) => filesUnder(join(root, folder)));
  const builds = readdirSync(root)
    .filter((name) => /\.gypi?$/.test(name))
    .map((name) => join(root, name));
  const files = [...sources, ...builds].map((path) => relative(root, path));
  const problems = [];
  const imports = new Map();
  let checked = 0;
  for (const file of files) {
    const text = readFileSync(join(root, file), 'utf8');
    const kind = extname(file);
    if (file.startsWith('lib/') && kind === '.ts') {
      imports.set(file, checkImports(root, file, text, problems));
    } else if (/^\.(?:h|hpp|cpp|cu|cuh)$/.test(kind)) {
      checkIncludes(root, file, text, problems);
    } else if (!/^\.(?:gypi?|m?js|sh)$/.test(kind)) {
      continue;
    }
    checked += 1;
    checkFlags(file, text, problems);
  }
  checkServerLoadsNoAddon(imports, problems);
  return { checked, problems };
}

/** Checks the imports of a file and returns the files of lib/ that it loads at run time. */
function checkImports(root, file, text, problems) {
  const layer = file.split('/')[1];
  const allowed = LIB_LAYERS[layer];
  if (allowed === undefined) {
    problems.push(`${file}: lib/${layer} is no known layer; add it to scripts/check-layers.mjs and docs/architecture.md`);
    return [];
  }
  const loaded = [];
  // "import … from 'x'", "export … from 'x'", "import 'x'" and "import('x')".
  for (const [, statement, name] of code(text).matchAll(/((?:\bfrom|\bimport)\s*\(?)\s*['"]([^'"]+)['"]/g)) {
    if (!name.startsWith('.')) continue;
    const target = relative(root, resolve(root, dirname(file), name)).replace(/\.js$/, '.ts');
    const targetLayer = target.split('/')[1];
    if (!target.startsWith('lib/')) {
      problems.push(`${file}: imports ${name}, which is outside lib/`);
    } else if (!existsSync(join(root, target))) {
      problems.push(`${file}: imports ${name}, which does not exist`);
    } else if (targetLayer !== layer && !allowed.includes(targetLayer)) {
      problems.push(`${file}: lib/${layer} may not import lib/${targetLayer} (${name})`);
    }
    if (!isTypeImport(code(text), statement, name)) loaded.push(target);
  }
  return loaded;
}

/** Whether every import of `name` disappears when TypeScript is compiled. */
function isTypeImport(text, statement, name) {
  if (!statement.startsWith('from')) return false;
  const clauses = [...text.matchAll(/\b(?:import|export)\s+(type\b)?[^'";]*?from\s*['"]([^'"]+)['"]/g)];
  return clauses.filter(([, , target]) => target === name).every(([, type]) => type !== undefined);
}

function checkServerLoadsNoAddon(imports, problems) {
  if (!imports.has(ADDON_LOADER)) problems.push(`${ADDON_LOADER} is missing: name the file that loads the addon`);
  const seen = new Map();
  const visit = (file, path) => {
    if (seen.has(file)) return;
    seen.set(file, path);
    for (const next of imports.get(file) ?? []) visit(next, [...path, next]);
  };
  for (const file of imports.keys()) if (file.startsWith('lib/server/')) visit(file, [file]);
  const path = seen.get(ADDON_LOADER);
  if (path !== undefined) problems.push(`the server process would load the addon: ${path.join(' -> ')}`);
}

function checkIncludes(root, file, text, problems) {
  const layer = file.startsWith('cuda/') ? file.split('/')[1] : undefined;
  if (layer === undefined || CUDA_LAYERS[layer] === undefined) {
    problems.push(`${file}: not in a known layer of cuda/; add it to scripts/check-layers.mjs and docs/architecture.md`);
    return;
  }
  for (const [, open, name] of code(text).matchAll(/^\s*#\s*include\s*([<"])([^>"]+)[>"]/gm)) {
    if (NODE_API_HEADER.test(name) && !NODE_API_LAYERS.has(layer)) {
      problems.push(`${file}: only cuda/addon and cuda/system may include ${name}`);
    } else if (CUDA_HEADER.test(name) && !/\.cuh?$/.test(file)) {
      problems.push(`${file}: only .cu and .cuh files may include ${name}`);
    } else if (open === '"') {
      const target = name.split('/')[0];
      if (NODE_API_HEADER.test(name) || CUDA_HEADER.test(name)) continue;
      if (!existsSync(join(root, 'cuda', name))) {
        problems.push(`${file}: includes "${name}", which is no file of cuda/ (paths are relative to cuda/)`);
      } else if (target !== layer && !CUDA_LAYERS[layer].includes(target)) {
        problems.push(`${file}: cuda/${layer} may not include cuda/${target} ("${name}")`);
      }
    }
  }
}

function checkFlags(file, text, problems) {
  if (file === 'scripts/check-layers.mjs') return;
  const found = FAST_MATH.exec(code(text, file));
  if (found !== null) problems.push(`${file}: ${found[0]} would change the bits`);
}

/** The text without comments, so that they may name what is forbidden. Strings are kept. */
function code(text, file = '') {
  if (/\.(?:gypi?|sh)$/.test(file)) return text.replace(/(^|\s)#.*$/gm, '$1');
  return text.replace(/("(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')|\/\/[^\n]*|\/\*[^]*?\*\//g, (_, string) => string ?? ' ');
}

function filesUnder(folder) {
  if (!existsSync(folder)) return [];
  return readdirSync(folder)
    .sort()
    .map((name) => join(folder, name))
    .flatMap((path) => (statSync(path).isDirectory() ? filesUnder(path) : [path]));
}

const script = fileURLToPath(import.meta.url);
if (resolve(process.argv[1] ?? '') === script) {
  const { checked, problems } = checkLayers(resolve(process.argv[2] ?? join(dirname(script), '..')));
  for (const problem of problems) console.error(problem);
  console.log(`layers: ${checked} files checked, ${problems.length} problems`);
  process.exitCode = problems.length === 0 ? 0 : 1;
}
