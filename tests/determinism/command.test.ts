import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, describe, expect, test } from '@jest/globals';
import { PACKAGE_ROOT } from '../../lib/cli/package.js';
import { startFixtureServer, type Fault } from './fixture-server.js';
import { run, start, type Finished } from './program.js';

const SMALL = ['--n-trials', '8', '--max-new-tokens', '8'];
const DEMO = join(PACKAGE_ROOT, 'models', 'demo');
const scratch = mkdtempSync(join(tmpdir(), 'detinfer-command-'));

afterAll(() => rmSync(scratch, { recursive: true, force: true }));

async function runOnFixture(faults: Fault[], ...args: string[]): Promise<Finished> {
  const server = await startFixtureServer({ faults });
  try {
    return await run('--url', server.url, ...SMALL, ...args);
  } finally {
    await server.close();
  }
}

describe('exit code', () => {
  test('0, with the lines of SGLang, JSON and JUnit', async () => {
    const [json, junit] = [join(scratch, 'report.json'), join(scratch, 'report.xml')];
    const { code, stdout, stderr } = await runOnFixture([], '--test-mode', 'all', '--json', json, '--junit', junit);
    expect(code).toBe(0);
    expect(stdout).toContain('\nTotal samples: 36, Unique samples: 1\n');
    expect(stdout.match(/otal samples: \d+, Unique samples: 1$/gm)).toHaveLength(10);
    expect(stderr).toContain('Testing mode radix_cache');
    expect(JSON.parse(readFileSync(json, 'utf8'))).toMatchObject({ exit_code: 0, options: { nTrials: 8 } });
    expect(readFileSync(junit, 'utf8')).toContain('tests="10" failures="0" errors="0"');
  });

  test('1, with the first difference', async () => {
    const { code, stdout } = await runOnFixture(['last-bit'], '--return-logprob', '--no-progress');
    expect(code).toBe(1);
    expect(stdout).toContain('Total samples: 36, Unique samples: 2');
    expect(stdout).toMatch(
      /first difference: logprob at output token 4\n.*token (\d+) ".", logprob -[\d.]+ .*\n.*token \1 /,
    );
  });

  test('2 for a server that answers nonsense', async () => {
    const { code, stderr } = await runOnFixture(['html']);
    expect(code).toBe(2);
    expect(stderr).toContain('BAD_RESPONSE');
  });

  test('2 for a port where nobody listens, with advice', async () => {
    const { code, stderr } = await run('--port', '1');
    expect(code).toBe(2);
    expect(stderr).toContain('detinfer launch');
  });

  test.each([
    [['--n-trials', '0'], /--n-trials/],
    [['--test-mode', 'double'], /takes single \| prefix/],
    [['--frobnicate'], /unknown flag --frobnicate/],
    [['--url', 'localhost:30000'], /needs a URL/],
    [['--model-path', 'x', '--port', '30000'], /cannot be used with/],
    [['--device', 'cpu'], /pass --model-path/],
    [['--model-path', '/no/such/folder'], /did not start[^]*no\/such\/folder/],
  ])('2 for %j', async (args, message) => {
    const { code, stderr } = await run(...args);
    expect(code).toBe(2);
    expect(stderr).toMatch(message);
  });
});

describe('a server of its own', () => {
  const OWN = ['--model-path', DEMO, '--max-new-tokens', '16'];

  test('is launched, tested and stopped', async () => {
    const { code, stdout, stderr } = await run(
      ...OWN,
      '--n-trials',
      '3',
      '--attention-backend',
      'triton',
      '--',
      '--page-size',
      '32',
    );
    expect(stderr).not.toContain('error');
    expect(code).toBe(0);
    expect(stdout).toContain('triton');
    expect(stdout).toContain('Total samples: 6, Unique samples: 1');
  });

  test.each([
    ['SIGINT', 130, 'running'],
    ['SIGTERM', 143, 'running'],
    ['SIGKILL', null, 'running'],
    ['SIGINT', 130, 'starting'],
    ['SIGKILL', null, 'starting'],
  ] as const)('does not outlive a test that gets %s (exit code %s) while %s', async (signal, expected, moment) => {
    const child = start(...OWN, '--n-trials', '1000');
    const running = new Promise<void>((resolve, reject) => {
      child.stderr.on('data', (chunk: Buffer) => chunk.includes('Testing mode') && resolve());
      child.once('exit', () => reject(new Error('the test ended early')));
    });
    if (moment === 'running') await running;
    else running.catch(() => {});
    // The server process; while running, its worker, too.
    const expectedCount = moment === 'running' ? 2 : 1;
    while (descendants(child.pid as number).length < expectedCount) await sleep(10);
    const started = descendants(child.pid as number);
    const exit = once(child, 'exit') as Promise<[number | null]>;
    child.kill(signal);
    expect((await exit)[0]).toBe(expected);
    for (let i = 0; i < 200 && started.some(isAlive); i++) await sleep(100);
    expect(started.filter(isAlive)).toEqual([]);
  });
});

/** Pids of a process's children, theirs, and so on. */
function descendants(pid: number): number[] {
  const parents = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map((name) => [Number(name), parentOf(name)]);
  const children = (of: number): number[] =>
    parents.filter(([, parent]) => parent === of).map(([child]) => child as number);
  const all: number[] = [];
  for (let next = children(pid); next.length > 0; next = next.flatMap(children)) all.push(...next);
  return all;
}

/** The parent of a process, or null when it is gone or a zombie, which only waits for being noticed. */
function parentOf(pid: string | number): number | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const [state, parent] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return state === 'Z' ? null : Number(parent);
  } catch {
    return null;
  }
}

function isAlive(pid: number): boolean {
  return parentOf(pid) !== null;
}
