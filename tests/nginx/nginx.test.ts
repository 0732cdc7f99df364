import { spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { PACKAGE_ROOT } from '../../lib/cli/package.js';
import { addressOf, killGroup, launch, READY, start, type Program } from '../e2e/program.js';

const MINUTES = 60_000;

let folder = '';
let url = '';
const servers: Program[] = [];
const programs: Program[] = [];

beforeAll(async () => {
  const { error } = spawnSync('nginx', ['-v']);
  if (error) throw new Error(`this suite needs nginx (Debian: apt-get install nginx): ${error.message}`);
  for (let i = 0; i < 2; i++) servers.push(launch('--max-total-tokens', '16384', '--enable-metrics'));
  programs.push(...servers);
  await Promise.all(servers.map((server) => server.until(READY)));
  await startNginx();
}, 5 * MINUTES);

afterAll(async () => {
  programs.forEach(killGroup);
  await Promise.all(programs.map((program) => program.ended));
  if (folder !== '') rmSync(folder, { recursive: true });
});

/** Starts nginx as docs/deploy/nginx.conf says, but for the ports and the places of its files. */
async function startNginx(): Promise<void> {
  folder = mkdtempSync(join(tmpdir(), 'detinfer-nginx-'));
  // Its workers give up root's rights and must still find their files.
  chmodSync(folder, 0o755);
  const port = await freePort();
  const [first, second] = servers.map((server) => new URL(addressOf(server)).host);
  const places = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((name) => `${name}_temp_path ${folder}/${name};`);
  const config = readFileSync(join(PACKAGE_ROOT, 'docs', 'deploy', 'nginx.conf'), 'utf8')
    .replace('127.0.0.1:30000', first!)
    .replace('127.0.0.1:30001', second!)
    .replace('listen 8080', `listen 127.0.0.1:${port}`)
    .replace('http {', `http {\n  access_log off;\n  ${places.join('\n  ')}`);
  const path = join(folder, 'nginx.conf');
  writeFileSync(path, `pid ${folder}/nginx.pid;\nerror_log stderr;\n${config}`);
  const nginx = start('nginx', ['-p', folder, '-c', path, '-e', 'stderr', '-g', 'daemon off;']);
  programs.push(nginx);
  url = `http://127.0.0.1:${port}`;
  for (let tries = 0; !(await isHealthy()); tries++) {
    if (tries > 200) throw new Error(`nginx does not answer:\n${nginx.output()}`);
    await sleep(50);
  }
}

async function freePort(): Promise<number> {
  const probe = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => probe.once('listening', resolve));
  const { port } = probe.address() as AddressInfo;
  await new Promise((resolve) => probe.close(resolve));
  return port;
}

async function isHealthy(): Promise<boolean> {
  return fetch(`${url}/health`).then(
    ({ status }) => status === 200,
    () => false,
  );
}

/** `detinfer test` through nginx. */
function detinferTest(...flags: string[]): Program {
  const program = start(process.execPath, ['bin/detinfer.js', 'test', '--url', url, '--no-progress', ...flags]);
  programs.push(program);
  return program;
}

async function requestsOf(server: Program): Promise<number> {
  const text = await (await fetch(`${addressOf(server)}/metrics`)).text();
  return Number(/^sglang:num_requests_total\{.*\} (\d+)$/m.exec(text)![1]);
}

describe('two servers behind nginx', () => {
  // radix_cache empties the cache of the server that it talks to, and finds out that there are two.
  test.each([
    ['single', 8],
    ['prefix', 8],
    ['p_vs_d', 4],
    ['mixed', 8],
  ])('pass the determinism test as if they were one: %s', async (mode, trials) => {
    const before = await Promise.all(servers.map(requestsOf));
    const flags = ['--n-trials', String(trials), '--max-new-tokens', '20', '--stream', '--return-logprob'];
    const program = detinferTest('--test-mode', mode, ...flags);
    expect([await program.ended, program.output()]).toEqual([0, expect.stringContaining('Deterministic: every unique count is 1')]);
    const after = await Promise.all(servers.map(requestsOf));
    for (const [i, count] of after.entries()) expect(count).toBeGreaterThan(before[i]!);
  }, 5 * MINUTES);

  test('one of them may be killed in the middle of it', async () => {
    const before = await requestsOf(servers[0]!);
    const program = detinferTest('--test-mode', 'single', '--n-trials', '12', '--max-new-tokens', '100');
    while ((await requestsOf(servers[0]!)) < before + 3) await sleep(20);
    expect(program.child.exitCode).toBeNull();
    killGroup(servers[0]!);
    expect([await program.ended, program.output()]).toEqual([0, expect.stringContaining('Deterministic: every unique count is 1')]);
  }, 5 * MINUTES);
});
