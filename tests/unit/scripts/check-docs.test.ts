import { spawnSync } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { PACKAGE_ROOT } from '../../../lib/cli/package.js';

let root = '';
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'detinfer-docs-'));
  for (const name of ['README.md', 'CONTRIBUTING.md', 'CHANGELOG.md', 'docs']) {
    cpSync(join(PACKAGE_ROOT, name), join(root, name), { recursive: true });
  }
});
afterEach(() => rmSync(root, { recursive: true }));

function check(): { code: number | null; problems: string[] } {
  const script = join(PACKAGE_ROOT, 'scripts', 'check-docs.mjs');
  const { status, stderr } = spawnSync(process.execPath, [script, root], { encoding: 'utf8' });
  return { code: status, problems: stderr.split('\n').filter((line) => line !== '') };
}

function edit(document: string, change: (text: string) => string): void {
  const path = join(root, document);
  writeFileSync(path, change(readFileSync(path, 'utf8')));
}

describe('check-docs', () => {
  test('accepts the docs as they are', () => {
    expect(check()).toEqual({ code: 0, problems: [] });
  });

  test.each([
    ['a flag that does not exist', 'README.md', '\nUse `--no-such-flag`.\n', 'there is no flag --no-such-flag'],
    ['a file that does not exist', 'docs/testing.md', '\nSee `lib/cli/gone.ts`.\n', 'there is no file lib/cli/gone.ts'],
    ['a gone file of a decision', 'docs/decisions/0005-grammars.md', '\nSee `lib/gone`.\n', 'there is no file lib/gone'],
    ['a gone script', 'CHANGELOG.md', '\n`node scripts/gone.mjs 5`\n', 'there is no program scripts/gone.mjs'],
    ['a gone program', 'docs/testing.md', '\n`node dist/tests/gone.js`\n', 'there is no program dist/tests/gone.js'],
    ['a dead link', 'CONTRIBUTING.md', '\nSee [this](docs/gone.md).\n', 'the link to docs/gone.md is dead'],
    ['an npm script that does not exist', 'README.md', '\nRun `npm run gone`.\n', 'there is no npm script gone'],
    ['an endpoint that does not exist', 'docs/api.md', '\n| `GET /gone` | nothing |\n', 'there is no endpoint /gone'],
    ['an error that does not exist', 'docs/errors.md', '\n| `GONE` | 400 | never | nothing |\n', 'there is no error code GONE 400'],
  ])('refuses %s', (_name, document, addition, message) => {
    edit(document, (text) => text + addition);
    expect(check()).toEqual({ code: 1, problems: [`${document}: ${message}`] });
  });

  test('refuses an error code or endpoint that is not documented', () => {
    edit('docs/errors.md', (text) => text.replace(/^\| `OVERLOADED`.*\n/m, ''));
    edit('docs/api.md', (text) => text.replace(/^\| `GET \/health`.*\n/m, ''));
    expect(check().problems).toEqual([
      'docs/api.md: the endpoint /health is missing',
      'docs/errors.md: the error code OVERLOADED 503 is missing',
    ]);
  });

  test('refuses a script that is not documented', () => {
    edit('CONTRIBUTING.md', (text) => text.replaceAll('scripts/prepare.mjs', 'prepare'));
    expect(check().problems).toEqual(['CONTRIBUTING.md: the script prepare.mjs is missing']);
  });

  test('refuses a stale table', () => {
    edit('docs/cli.md', (text) => text.replace('`30000`', '`30001`'));
    expect(check().problems).toEqual(['docs/cli.md is stale: run npm run docs']);
  });
});
