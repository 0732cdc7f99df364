#!/usr/bin/env node
// Writes the tables in docs/cli.md from the command line's own definition (build first).
//   node scripts/generate-docs.mjs           rewrites the file
// scripts/check-docs.mjs fails when the file is not what this writes.
import { readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ROOT } from './prepare.mjs';

export const CLI_DOC = join('docs', 'cli.md');

/** Text for each `<!-- begin NAME -->` … `<!-- end NAME -->` of docs/cli.md. */
async function sections() {
  const { describeDefault, FLAG_LIST, GROUPS } = await built('cli/server-flags.js');
  const { ACCEPTED_FLAGS, REFUSALS } = await built('cli/sglang-flags.js');
  const { buildProgram } = await built('cli/main.js');
  const commands = buildProgram().commands.filter((command) => command.name() !== 'launch');
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

/** docs/cli.md with its tables as they should be. */
export async function generate(text) {
  for (const [name, content] of Object.entries(await sections())) {
    const [begin, end] = [`<!-- begin ${name} -->`, `<!-- end ${name} -->`];
    const [from, to] = [text.indexOf(begin), text.indexOf(end)];
    if (from < 0 || to < from) throw new Error(`${CLI_DOC} lacks the markers ${begin} and ${end}`);
    text = `${text.slice(0, from + begin.length)}\n\n${content}\n\n${text.slice(to)}`;
  }
  return text;
}

if (resolve(process.argv[1] ?? '') === fileURLToPath(import.meta.url)) {
  const path = join(ROOT, CLI_DOC);
  writeFileSync(path, await generate(readFileSync(path, 'utf8')));
}
