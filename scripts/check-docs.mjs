#!/usr/bin/env node
// Fails when README, CONTRIBUTING, CHANGELOG or docs/ name something that the code does not have (a flag, a file, a
// program, an npm script, an endpoint, an error code), leave an endpoint or error code out, or hold generated tables that
// are stale. Build first.
//   node scripts/check-docs.mjs [folder with those files and docs/, compared with this project's code]
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { buildProgram } from '../dist/lib/cli/main.js';
import { refusal } from '../dist/lib/cli/sglang-flags.js';
import { ERRORS } from '../dist/lib/protocol/errors.js';
import { ROOT } from './prepare.mjs';
import { GENERATED_DOCS, generate } from './generate-docs.mjs';

const docsRoot = resolve(process.argv[2] ?? ROOT);
const readDoc = (path) => readFileSync(join(docsRoot, path), 'utf8');
const readCode = (path) => readFileSync(join(ROOT, path), 'utf8');
const problems = [];

const folders = ['docs', 'docs/decisions'];
const documents = [
  ...['README.md', 'CONTRIBUTING.md', 'CHANGELOG.md'],
  ...folders.flatMap((folder) => namesIn(join(docsRoot, folder), '.md').map((name) => `${folder}/${name}`)),
];
const isFlag = await flagTest();
for (const document of documents) {
  const text = readDoc(document);
  checkFlags(document, text);
  checkLinks(document, text);
  checkPaths(document, text);
  checkPrograms(document, text);
  checkScripts(document, text);
}
const scripts = namesIn(join(ROOT, 'scripts'), '.mjs');
compare('CONTRIBUTING.md', 'script', [...readDoc('CONTRIBUTING.md').matchAll(/scripts\/([\w-]+\.mjs)/g)].map(([, name]) => name), scripts);
compare('docs/api.md', 'endpoint', documentedEndpoints(), serverRoutes());
compare('docs/errors.md', 'error code', documentedErrors(), Object.entries(ERRORS).map((entry) => entry.join(' ')));
for (const path of GENERATED_DOCS) {
  if (readDoc(path) !== (await generate(path, readDoc(path)))) problems.push(`${path} is stale: run npm run docs`);
}

for (const problem of problems) console.error(problem);
console.log(`docs: ${documents.length} files checked, ${problems.length} problems`);
process.exitCode = problems.length === 0 ? 0 : 1;

/** Whether a word is a flag of a detinfer command, refused ones included, or of a tool that the scripts call. */
async function flagTest() {
  const own = new Set(['--help', '--version']);
  const collect = (command) => {
    for (const { short, long } of command.options) own.add(short).add(long);
    command.commands.forEach(collect);
  };
  collect(await buildProgram());
  const tools = namesIn(join(ROOT, 'scripts'), '.mjs').map((name) => readCode(`scripts/${name}`));
  return (name) => own.has(name) || refusal(name) !== undefined || tools.some((text) => text.includes(`'${name}'`));
}

function checkFlags(document, text) {
  for (const [name] of text.matchAll(/(?<![\w-])--[a-z][a-z0-9-]+/g)) {
    if (!isFlag(name)) problems.push(`${document}: there is no flag ${name}`);
  }
}

function checkLinks(document, text) {
  for (const [, target] of text.matchAll(/\]\((?!https?:|#)([^)#]+)(?:#[^)]*)?\)/g)) {
    if (!existsSync(join(docsRoot, dirname(document), target)) && !existsSync(join(ROOT, dirname(document), target))) {
      problems.push(`${document}: the link to ${target} is dead`);
    }
  }
}

/** `code` that looks like a path in the repository: it begins with a folder of the project, or is a file of its root. */
function checkPaths(document, text) {
  const built = new Set(['dist', 'build', 'node_modules']);
  const tops = new Set(readdirSync(ROOT).filter((name) => !built.has(name)));
  for (const [, path] of text.matchAll(/`([\w.@-]+(?:\/[\w.@-]+)*)\/?`/g)) {
    const isPath = path.includes('/') ? tops.has(path.split('/')[0]) : /\.(?:mjs|gyp|md)$/.test(path);
    if (isPath && !existsSync(join(ROOT, path))) problems.push(`${document}: there is no file ${path}`);
  }
}

/** What a command line runs: a script, or what is compiled from one. */
function checkPrograms(document, text) {
  for (const [, path] of text.matchAll(/\b(?:node|python3?) (?:--[\w-]+ )*((?:scripts|dist)\/[\w./-]+\w)/g)) {
    const source = path.replace(/^dist\//, '').replace(/(?<=^(?:lib|tests)\/.*)\.js$/, '.ts');
    if (!existsSync(join(ROOT, source))) problems.push(`${document}: there is no program ${path}`);
  }
}

function checkScripts(document, text) {
  const { scripts } = JSON.parse(readCode('package.json'));
  for (const [, name] of text.matchAll(/\bnpm run ([\w:-]+)/g)) {
    if (!(name in scripts)) problems.push(`${document}: there is no npm script ${name}`);
  }
}

/** The paths in the first column of the tables in docs/api.md. */
function documentedEndpoints() {
  const cells = [...readDoc('docs/api.md').matchAll(/^\| (`.*?) \|/gm)].map(([, cell]) => cell);
  return cells.flatMap((cell) => [...cell.matchAll(/`[A-Z, ]+(\/[\w/:]+)`/g)].map(([, path]) => path));
}

function serverRoutes() {
  const files = namesIn(join(ROOT, 'lib', 'server', 'routes'), '.ts').map((name) => readCode(`lib/server/routes/${name}`));
  return files.flatMap((text) => [...text.matchAll(/'(\/[\w/:]+)'/g)].map(([, path]) => path));
}

function documentedErrors() {
  return [...readDoc('docs/errors.md').matchAll(/^\| `([A-Z_]+)` \| (\d+) \|/gm)].map(([, code, status]) => `${code} ${status}`);
}

/** Both lists hold the same things. */
function compare(document, kind, documented, actual) {
  for (const name of documented) if (!actual.includes(name)) problems.push(`${document}: there is no ${kind} ${name}`);
  for (const name of actual) if (!documented.includes(name)) problems.push(`${document}: the ${kind} ${name} is missing`);
}

function namesIn(folder, suffix) {
  return readdirSync(folder)
    .filter((name) => basename(name).endsWith(suffix))
    .sort();
}
