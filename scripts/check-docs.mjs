#!/usr/bin/env node
// Fails when README, CONTRIBUTING or docs/ name something that the code does not have: a flag, a file, an npm script,
// an endpoint, an error code; or when the generated tables are stale. Build first.
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { ROOT } from './prepare.mjs';
import { CLI_DOC, generate } from './generate-docs.mjs';

const problems = [];
const read = (path) => readFileSync(join(ROOT, path), 'utf8');
const documents = [
  ...['README.md', 'CONTRIBUTING.md'],
  ...readdirSync(join(ROOT, 'docs'))
    .filter((name) => name.endsWith('.md'))
    .map((name) => `docs/${name}`),
];

for (const document of documents) {
  const text = read(document);
  checkFlags(document, text, await knownFlags());
  checkPaths(document, text);
  checkScripts(document, text);
}
checkEndpoints();
await checkErrorCodes();
if (read(CLI_DOC) !== (await generate())) problems.push(`${CLI_DOC} is stale: run node scripts/generate-docs.mjs`);

for (const problem of problems) console.error(problem);
console.log(`docs: ${documents.length} files checked, ${problems.length} problems`);
process.exitCode = problems.length === 0 ? 0 : 1;

/** Every flag of detinfer's commands, refused ones included, and those of the tools that the docs may call. */
async function knownFlags() {
  const { buildProgram } = await import('../dist/lib/cli/main.js');
  const { refusal } = await import('../dist/lib/cli/sglang-flags.js');
  const own = new Set(['--help', '--version']);
  const collect = (command) => {
    for (const { short, long } of command.options) for (const name of [short, long]) own.add(name);
    command.commands.forEach(collect);
  };
  collect(buildProgram());
  const tools = readdirSync(join(ROOT, 'scripts')).map((name) => read(`scripts/${name}`)).join('\n') + read('binding.gyp');
  return (name) => own.has(name) || refusal(name) !== undefined || tools.includes(name);
}

function checkFlags(document, text, known) {
  for (const [name] of text.matchAll(/(?<![\w-])--[a-z][a-z0-9-]+/g)) {
    if (!known(name)) problems.push(`${document}: there is no flag ${name}`);
  }
}

/** Links and `code` that look like paths of the repository must exist. */
function checkPaths(document, text) {
  const folders = readdirSync(ROOT, { withFileTypes: true }).filter((entry) => entry.isDirectory());
  const tops = new Set(folders.map((entry) => entry.name).filter((name) => name !== 'node_modules'));
  for (const [, target] of text.matchAll(/\]\((?!https?:|#)([^)#]+)(?:#[^)]*)?\)/g)) {
    if (!existsSync(join(ROOT, dirname(document), target))) problems.push(`${document}: the link to ${target} is dead`);
  }
  for (const [, span] of text.matchAll(/`([\w.@-]+(?:\/[\w.@{},-]+)*\/?)`/g)) {
    const isPath = span.includes('/') ? tops.has(span.split('/')[0]) : /\.(?:mjs|gyp|json|md)$/.test(span);
    if (isPath && !expand(span).some((path) => existsSync(join(ROOT, path)) || existsSync(join(ROOT, 'docs', path)))) {
      if (!/^(?:build|dist)\//.test(span) && !MODEL_FILES.has(span)) problems.push(`${document}: there is no file ${span}`);
    }
  }
}

/** Files of a user's model folder, which the docs name without a path. */
const MODEL_FILES = new Set(['config.json', 'generation_config.json', 'tokenizer.json', 'tokenizer_config.json']);

/** a/{b,c} as a/b and a/c. */
function expand(path) {
  const [, before, list, after] = /^(.*?)\{([^}]*)\}(.*)$/.exec(path) ?? [];
  return list === undefined ? [path] : list.split(',').map((item) => `${before}${item}${after}`);
}

function checkScripts(document, text) {
  const { scripts } = JSON.parse(read('package.json'));
  for (const [, name] of text.matchAll(/\bnpm run ([\w:-]+)/g)) {
    if (!(name in scripts)) problems.push(`${document}: there is no npm script ${name}`);
  }
}

/** Every endpoint in the tables of docs/api.md is a route of the server, and the other way round. */
function checkEndpoints() {
  const routes = new Set();
  for (const name of readdirSync(join(ROOT, 'lib', 'server', 'routes'))) {
    for (const [, path] of read(`lib/server/routes/${name}`).matchAll(/['"`](\/[a-z0-9_/]+)['"`]/g)) routes.add(path);
  }
  const documented = new Set([...read('docs/api.md').matchAll(/^\|.*$/gm)].flatMap(([row]) => paths(row.split('|')[1])));
  for (const path of documented) if (!routes.has(path)) problems.push(`docs/api.md: the server has no endpoint ${path}`);
  for (const path of routes) if (!documented.has(path)) problems.push(`docs/api.md: the endpoint ${path} is missing`);
}

function paths(cell) {
  return [...cell.matchAll(/`[A-Z, ]*(\/[a-z0-9_/]+)`/g)].map(([, path]) => path);
}

/** The table of docs/errors.md has exactly the codes of lib/protocol/errors.ts, with their statuses. */
async function checkErrorCodes() {
  const { ERRORS } = await import('../dist/lib/protocol/errors.js');
  const rows = [...read('docs/errors.md').matchAll(/^\| `([A-Z_]+)` \| (\d+) \|/gm)].map(([, code, status]) => [code, Number(status)]);
  const documented = new Map(rows);
  for (const [code, status] of Object.entries(ERRORS)) {
    if (documented.get(code) !== status) problems.push(`docs/errors.md: ${code} with status ${status} is missing`);
  }
  for (const [code] of rows) if (!(code in ERRORS)) problems.push(`docs/errors.md: there is no error code ${code}`);
}
