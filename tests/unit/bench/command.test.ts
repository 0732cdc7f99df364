import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { afterAll, describe, expect, test } from '@jest/globals';
import { runNativeBench } from '../../../lib/bench/native.js';
import { PACKAGE_ROOT } from '../../../lib/cli/package.js';
import { startFixtureServer } from '../../determinism/fixture-server.js';

const TINY = join(PACKAGE_ROOT, 'tests', 'fixtures', 'qwen3-tiny');
const scratch = mkdtempSync(join(tmpdir(), 'detinfer-bench-'));
const json = join(scratch, 'result.json');

afterAll(() => rmSync(scratch, { recursive: true, force: true }));

async function bench(...args: string[]): Promise<{ code: number | null; stdout: string; stderr: string }> {
  const child = spawn(process.execPath, [join(PACKAGE_ROOT, 'bin', 'detinfer.js'), 'bench', ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const exit = once(child, 'exit') as Promise<[number | null]>;
  const [stdout, stderr, [code]] = await Promise.all([text(child.stdout), text(child.stderr), exit]);
  return { code, stdout, stderr };
}

describe('bench decode', () => {
  test('sets decode and prefill beside the memory floor', async () => {
    const sizes = ['--prompt-tokens', '40', '--new-tokens', '8', '--rounds', '1', '--threads', '1'];
    const oneLayer = ['--json-model-override-args', '{"num_hidden_layers": 1}'];
    const { code, stdout, stderr } = await bench('decode', '--model-path', TINY, ...oneLayer, ...sizes, '--json', json);
    expect(stderr).toBe('');
    expect(code).toBe(0);
    expect(stdout).toMatch(/^Decode, batch 1 +[\d.]+ tokens\/s: [\d.]+ of the memory floor/m);
    const report = JSON.parse(readFileSync(json, 'utf8')) as Record<string, number> & { info: Record<string, number> };
    expect(report.info.threads).toBe(1);
    // Keys and values in bf16 of 2 heads of 128, in one layer.
    expect(report.info.kvBytesPerToken).toBe(2 * 2 * 2 * 128);
    const { weightBytesPerToken = NaN, kvBytesPerToken = NaN } = report.info;
    expect(report.bytesPerToken).toBe(weightBytesPerToken + kvBytesPerToken * 43.5);
    expect(report.floorTokensPerSecond).toBeCloseTo(
      (report.bandwidthBytesPerSecond ?? NaN) / (report.bytesPerToken ?? NaN),
    );
    // A rate that a machine can have.
    expect(report.bandwidthBytesPerSecond).toBeGreaterThan(1e8);
    expect(report.bandwidthBytesPerSecond).toBeLessThan(1e13);
    expect(report.decodeTokensPerSecond).toBeGreaterThan(0);
    expect(report.prefillTokensPerSecond).toBeGreaterThan(0);
  });

  test('refuses lengths that do not fit and models that are not there', async () => {
    const tooLong = await bench('decode', '--model-path', TINY, '--prompt-tokens', '100000');
    expect(tooLong.code).toBe(2);
    expect(tooLong.stderr).toMatch(/--prompt-tokens 100000 and --new-tokens 64 are more than the \d+ tokens that fit/);
    const missing = await bench('decode', '--model-path', '/no/such/folder');
    expect(missing.code).toBe(2);
    expect(missing.stderr).toContain('/no/such/folder');
  });
});

describe('bench serving', () => {
  test('exit code 0 with a report', async () => {
    const server = await startFixtureServer();
    const { code, stdout } = await bench(
      'serving',
      '--url',
      server.url,
      '--num-prompts',
      '8',
      '--request-rate',
      '200',
      '--json',
      json,
    );
    await server.close();
    expect(code).toBe(0);
    expect(stdout).toMatch(/^Successful requests +8$/m);
    expect(JSON.parse(readFileSync(json, 'utf8'))).toMatchObject({
      options: { requestRate: 200 },
      metrics: { completed: 8 },
      cpu: null,
    });
  });

  test('launches and stops a server of its own, and measures its CPU time', async () => {
    const own = ['--model-path', TINY, '--num-prompts', '4', '--random-input-len', '16', '--random-output-len', '16'];
    const { code, stdout } = await bench('serving', ...own, '--', '--skip-tokenizer-init');
    expect(code).toBe(0);
    expect(stdout).toMatch(/^CPU cores in use +server [\d.]+, worker [\d.]+, this client [\d.]+$/m);
    expect(stdout).toMatch(/^CPU time per token +(server [\d.]+ µs, worker without engine [\d.]+ µs|too short a run to tell)$/m);
  });

  test('exit code 2 where nobody listens and for bad flags', async () => {
    expect((await bench('serving', '--port', '1')).code).toBe(2);
    const { code, stderr } = await bench('serving', '--request-rate', 'fast');
    expect(code).toBe(2);
    expect(stderr).toContain('--request-rate');
  });
});

describe('the native benchmark', () => {
  test('that is not built is an error that says what to do', async () => {
    const bench = { program: '/no/detinfer_bench', build: 'npm run build' };
    await expect(runNativeBench(bench, [])).rejects.toMatchObject({
      code: 'UNSUPPORTED',
      message: expect.stringContaining('npm run build'),
    });
  });

  test('bench without a subcommand prints help', async () => {
    const { code, stderr } = await bench();
    expect(code).toBe(2);
    expect(stderr).toContain('serving');
    expect(stderr).not.toContain('error');
  });
});
