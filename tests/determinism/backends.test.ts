import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { PACKAGE_ROOT } from '../../lib/cli/package.js';
import { startFixtureServer, type FixtureOptions } from './fixture-server.js';
import { run, type Finished } from './program.js';

const DEMO = join(PACKAGE_ROOT, 'models', 'demo');

async function compare(servers: FixtureOptions[], ...args: string[]): Promise<Finished> {
  const started = await Promise.all(servers.map((options) => startFixtureServer(options)));
  try {
    const urls = started.map(({ url }) => url).join(',');
    const small = ['--n-trials', '7', '--max-new-tokens', '8', '--no-progress'];
    return await run('--test-mode', 'backends', '--urls', urls, ...small, ...args);
  } finally {
    await Promise.all(started.map((server) => server.close()));
  }
}

describe('running servers', () => {
  test('that agree', async () => {
    const { code, stdout, stderr } = await compare([{}, {}, {}], '--temperature', '0.8');
    expect(stderr).toBe('');
    expect(code).toBe(0);
    expect(stdout).toMatch(/^Answers of .*: total samples: 84, Unique samples: 1$/m);
  });

  test('one of which has another last bit of one logprob in large batches', async () => {
    const { code, stdout } = await compare([{}, {}, { faults: ['last-bit'] }]);
    expect(code).toBe(1);
    expect(stdout).toMatch(/total samples: 84, Unique samples: 2/);
    expect(stdout).toMatch(/first difference: logprob at output token 4\n.*batch of 6, item 0, .*\n.*batch of 6, item 0, /);
  });

  test.each([
    ['text', /first difference: text at output character 8/],
    ['finish', /first difference: finish reason/],
    ['scoring', /first difference: logprob at prompt token 5/],
    ['batch-size', /first difference: token at output token 4/],
  ] as const)('one of which has the fault %s', async (fault, message) => {
    const { code, stdout } = await compare([{}, { faults: [fault] }]);
    expect(code).toBe(1);
    expect(stdout).toMatch(message);
  });

  test('of which one takes text and the other does not', async () => {
    const { code, stderr } = await compare([{}, { tokenizer: false }]);
    expect(code).toBe(2);
    expect(stderr).toContain("can't be compared: skipTokenizerInit is false of one and true of the other");
  });
});

test('launches a server for each backend', async () => {
  const args = ['--model-path', DEMO, '--device', 'cpu', '--n-trials', '3', '--max-new-tokens', '8', '--no-progress'];
  const { code, stdout, stderr } = await run('--test-mode', 'backends', ...args, '--backends', 'fa3,triton,cpu');
  expect(stderr).toBe('');
  expect(code).toBe(0);
  expect(stdout).toContain('Answers of fa3 (cpu), triton (cpu), cpu: total samples: 18, Unique samples: 1');
});

test.each([
  [['--test-mode', 'backends'], /pass --model-path .* or --urls/],
  [['--test-mode', 'backends', '--urls', 'http://localhost:1'], /--urls names one server/],
  [['--test-mode', 'backends', '--model-path', 'x', '--backends', 'fa3'], /--backends names one/],
  [['--test-mode', 'backends', '--backends', 'fa3,fa4'], /takes fa3 \| flashinfer \| triton \| cpu, not 'fa4'/],
  [['--backends', 'fa3,cpu'], /--backends is for --test-mode backends/],
])('exit code 2 for %j', async (args, message) => {
  const { code, stderr } = await run(...args);
  expect(code).toBe(2);
  expect(stderr).toMatch(message);
});
