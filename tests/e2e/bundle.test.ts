import { execFileSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { PACKAGE_ROOT, PACKAGE_VERSION } from '../../lib/cli/package.js';
import { addressOf, ctrlC, killGroup, READY, start, type Program } from './program.js';

const MINUTES = 60_000;

let folder = '';
let env: NodeJS.ProcessEnv = {};
const running: Program[] = [];

/** Packs the project and unpacks it in an empty folder, for a machine whose PATH holds what the launcher needs alone. */
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'detinfer-bundle-test-'));
  execFileSync(process.execPath, ['scripts/bundle.mjs', '--fast', '--out', folder], { cwd: PACKAGE_ROOT });
  const [archive = ''] = readdirSync(folder);
  expect(archive).toBe(`detinfer-${PACKAGE_VERSION}-linux-${process.arch}.tar.gz`);
  execFileSync('tar', ['xf', archive], { cwd: folder });
  const tools = join(folder, 'tools');
  mkdirSync(tools);
  const readlink = execFileSync('sh', ['-c', 'command -v readlink'], { encoding: 'utf8' }).trim();
  symlinkSync(readlink, join(tools, 'readlink'));
  env = { PATH: tools, HOME: folder };
}, 5 * MINUTES);

afterAll(() => {
  running.forEach(killGroup);
  rmSync(folder, { recursive: true, force: true });
});

const launcher = (): string => join(folder, 'detinfer', 'bin', 'detinfer');

describe('the bundle', () => {
  test('runs where there is no node, through a link, too', () => {
    expect((env.PATH ?? '').split(delimiter).some((path) => existsSync(join(path, 'node')))).toBe(false);
    const link = join(folder, 'link');
    symlinkSync(launcher(), link);
    for (const program of [launcher(), link]) {
      expect(execFileSync(program, ['--version'], { cwd: '/', env, encoding: 'utf8' })).toMatch(/^detinfer \d/);
    }
  });

  test('has nothing that only builds or tests', () => {
    const packages = readdirSync(join(folder, 'detinfer', 'node_modules'));
    expect(packages).toContain('fastify');
    for (const name of ['node-gyp', 'node-addon-api', 'jest', 'typescript']) expect(packages).not.toContain(name);
    expect(readdirSync(join(folder, 'detinfer', 'dist'))).toEqual(['lib']);
  });

  test.each(['cpu', 'cuda'])('serves the demo model with --device %s', async (device) => {
    // Everything around the engine of a GPU can be tried without one: the engine of the CPU stands in.
    const release = join(folder, 'detinfer', 'build', 'Release');
    copyFileSync(join(release, 'detinfer_cpu.node'), join(release, 'detinfer_cuda.node'));
    const flags = ['--port', '0', '--threads', '1', '--max-total-tokens', '8192', '--device', device];
    const program = start(launcher(), ['launch', ...flags], folder, env);
    running.push(program);
    await program.until(READY);
    expect(program.output()).toContain(join(folder, 'detinfer', 'models', 'demo'));
    expect(program.output()).toMatch(device === 'cpu' ? /device +cpu \(/ : /device +cuda \(GPU 0: /);
    expect(program.output()).toContain(device === 'cpu' ? 'in pages of 16' : 'in pages of 128');
    const response = await fetch(`${addressOf(program)}/generate`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ text: '2 + 3 =', sampling_params: { temperature: 0, max_new_tokens: 2 } }),
    });
    expect(((await response.json()) as { text: string }).text).toBe(' 5');
    ctrlC(program);
    expect(await program.ended).toBe(0);
  }, 2 * MINUTES);
});
