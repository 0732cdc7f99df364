#!/usr/bin/env node
// Writes the tables in docs/cli.md from the command line's own definition (build first), and that of backends in README.md
// from docs/compatibility.json, which tests/gpu/compatibility.ts records on a GPU.
//   node scripts/generate-docs.mjs           rewrites the files
// scripts/check-docs.mjs fails when a file is not what this writes.
import { readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ROOT } from './prepare.mjs';

const CLI_DOC = join('docs', 'cli.md');
/** What holds generated tables. */
export const GENERATED_DOCS = [CLI_DOC, 'README.md'];

/** Text for each `<!-- begin NAME -->` … `<!-- end NAME -->` of a file. */
function sections(path) {
  return path === CLI_DOC ? commandLine() : { compatibility: compatibilityTable() };
}

async function commandLine() {
  const { describeDefault, FLAG_LIST, GROUPS } = await built('cli/server-flags.js');
  const { ACCEPTED_FLAGS, REFUSALS } = await built('cli/sglang-flags.js');
  const { buildProgram } = await built('cli/main.js');
  const commands = (await buildProgram()).commands.filter((command) => command.name() !== 'launch');
  return {
    'launch flags': GROUPS.map((group) => groupTable(group, FLAG_LIST.filter((flag) => flag.group === group), describeDefault)).join('\n\n'),
    'accepted flags': table(
      ['flag', 'at start-up'],
      ACCEPTED_FLAGS.map(({ names, value, note }) => [names.map((name) => flagCell(name, value)).join(', '), note]),
    ),
    'refused flags': table(
      ['flag', 'why'],
      [...REFUSALS].map(([name, reason]) => [flagCell(name, null), reason]),
    ),
    'other commands': commands.map((command) => commandSection(command)).join('\n\n'),
  };
}

/** What the recorded run found: a row per backend, a column per feature. */
function compatibilityTable() {
  const { gpu, date, contract, cells } = JSON.parse(readFileSync(join(ROOT, 'docs', 'compatibility.json'), 'utf8'));
  const features = Object.keys(Object.values(cells)[0]);
  const rows = Object.entries(cells).map(([backend, found]) => [backend, ...features.map((name) => (found[name] ? 'yes' : 'no'))]);
  return `${table(['backend', ...features], rows)}\n\n${gpu}, ${date}, ${contract}.`;
}

function groupTable(group, flags, describeDefault) {
  const rows = flags.map((flag) => [
    [flag.name, ...(flag.aliases ?? [])].map((each) => flagCell(each, flag.value)).join(', '),
    flag.value === null ? 'off' : describeDefault(flag, (value) => `\`${value}\``),
    flag.help,
  ]);
  return `### ${group}\n\n${table(['flag', 'default', 'meaning'], rows)}`;
}

/** A command, its options, and its subcommands with theirs. */
function commandSection(command, path = 'detinfer') {
  const name = [path, [command.name(), ...command.aliases()].join(' | ')].join(' ');
  const rows = command.options
    .filter((option) => !option.hidden)
    .map(({ flags, description, defaultValue, defaultValueDescription }) => [
      `\`${flags.replaceAll('|', '\\|')}\``,
      defaultValueDescription ?? (defaultValue === undefined ? '' : `\`${defaultValue}\``),
      description,
    ]);
  const parts = [`## ${name}`, `${command.description()}`];
  if (rows.length > 0) parts.push(table(['flag', 'default', 'meaning'], rows));
  return [...parts, ...command.commands.map((child) => commandSection(child, `${path} ${command.name()}`))].join('\n\n');
}

function flagCell(name, value) {
  return `\`${value === null ? name : `${name} ${value}`}\``;
}

function table(header, rows) {
  return [header, header.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}

function built(path) {
  return import(new URL(`../dist/lib/${path}`, import.meta.url));
}

/** The text of a file with its tables as they should be. */
export async function generate(path, text) {
  for (const [name, content] of Object.entries(await sections(path))) {
    const [begin, end] = [`<!-- begin ${name} -->`, `<!-- end ${name} -->`];
    const [from, to] = [text.indexOf(begin), text.indexOf(end)];
    if (from < 0 || to < from) throw new Error(`${path} lacks the markers ${begin} and ${end}`);
    text = `${text.slice(0, from + begin.length)}\n\n${content}\n\n${text.slice(to)}`;
  }
  return text;
}

if (resolve(process.argv[1] ?? '') === fileURLToPath(import.meta.url)) {
  for (const path of GENERATED_DOCS) {
    const file = join(ROOT, path);
    writeFileSync(file, await generate(path, readFileSync(file, 'utf8')));
  }
}
