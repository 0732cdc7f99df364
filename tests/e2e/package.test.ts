import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { PACKAGE_ROOT } from '../../lib/cli/package.js';
import { addressOf, ctrlC, descendants, killGroup, READY, start, survivors, type Program } from './program.js';

/** Compiling the engine on a slow machine takes its time. */
const MINUTES = 60_000;

let folder = '';
let app = '';
const running: Program[] = [];

/** Packs the project as it would be published and installs the archive in an empty project elsewhere. */
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'detinfer-package-'));
  app = join(folder, 'app');
  mkdirSync(app);
  // Everything is built by now; building again would write files that other tests are reading.
  npm(PACKAGE_ROOT, 'pack', '--ignore-scripts', '--pack-destination', folder);
  const [archive = ''] = execFileSync('find', [folder, '-name', '*.tgz'], { encoding: 'utf8' }).trim().split('\n');
  writeFileSync(join(app, 'package.json'), JSON.stringify({ name: 'app', version: '1.0.0', private: true }));
  npm(app, 'install', '--no-audit', '--no-fund', archive);
}, 10 * MINUTES);

afterEach(() => running.splice(0).forEach(killGroup));

afterAll(() => rmSync(folder, { recursive: true, force: true }));

function npm(cwd: string, ...args: string[]): string {
  // Variables of the npm that runs this test would name another project.
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^npm_(?!config_nodedir)/i.test(name)));
  return execFileSync('npm', args, { cwd, env, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
}

function npx(command: string): Program {
  const program = start('npx', ['detinfer', command, '--port', '0'], app);
  running.push(program);
  return program;
}

const installed = (...path: string[]): string => join(app, 'node_modules', 'detinfer', ...path);

describe('the installed package', () => {
  test('has what it needs and nothing else', () => {
    for (const name of ['bin/detinfer.js', 'dist/lib/cli/main.js', 'models/demo/model.safetensors', 'README.md', 'LICENSE']) {
      expect([name, existsSync(installed(name))]).toEqual([name, true]);
    }
    for (const name of ['lib', 'tests', 'dist/tests', 'tsconfig.json', '.ci']) {
      expect([name, existsSync(installed(name))]).toEqual([name, false]);
    }
  });

  test('serves the demo model through npx and stops', async () => {
    const program = npx('launch');
    await program.until(READY, 60);
    const response = await fetch(`${addressOf(program)}/generate`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ text: '2 + 3 =', sampling_params: { temperature: 0, max_new_tokens: 2 } }),
    });
    expect(response.status).toBe(200);
    expect(((await response.json()) as { text: string }).text).toBe(' 5');
    const processes = descendants(program.child.pid ?? 0);
    expect(processes.length).toBeGreaterThanOrEqual(2);
    ctrlC(program);
    // npx itself ends by the signal; the server says that it ended in order.
    await program.ended;
    expect(program.output()).toContain('Stopped.');
    expect(await survivors(processes, 10)).toEqual([]);
  });

  test('builds the engine at the first launch where install scripts did not run', async () => {
    rmSync(installed('build', 'Release', 'detinfer_cpu.node'));
    const program = npx('launch');
    await program.until(READY, 5 * 60);
    expect(program.output()).toContain('The native engine is not built yet. Building it once');
    ctrlC(program);
    await program.ended;
  }, 10 * MINUTES);
});
