import { execFileSync } from 'node:child_process';
import { cpSync, mkdtempSync, rmSync, truncateSync } from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, expect, test } from '@jest/globals';
import { DEMO_MODEL_PATH, PACKAGE_ROOT } from '../../lib/cli/package.js';
import { addressOf, ctrlC, descendants, killGroup, launch, ON_FREE_PORT, READY, start } from './program.js';
import { survivors, untilItRuns, type Program } from './program.js';

const running: Program[] = [];

afterEach(async () => {
  running.forEach(killGroup);
  await Promise.all(running.splice(0).map((program) => program.ended));
});

async function ready(...flags: string[]): Promise<Program> {
  const program = launch(...flags);
  running.push(program);
  await program.until(READY);
  await program.until(/curl .*\n/);
  return program;
}

/** A request that runs. Its answer stands in an object, or who awaits the one would await the other. */
interface Running {
  answer: Promise<{ status: number; body: string }>;
}

/** Asks for `n` long answers, and resolves when a worker has begun with them. */
async function longRequest(program: Program, n = 1): Promise<Running> {
  const sampling_params = { temperature: 0, max_new_tokens: 3000, ignore_eos: true, n };
  const answer = fetch(`${addressOf(program)}/generate`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ text: 'Once upon a time', sampling_params }),
  }).then(async (response) => ({ status: response.status, body: await response.text() }));
  // Whoever asks for the answer later gets the error.
  answer.catch(() => {});
  await untilItRuns(program);
  return { answer };
}

describe('detinfer launch', () => {
  test('says what it serves, and its curl example works as printed', async () => {
    const program = await ready();
    const output = program.output();
    expect(output).toMatch(new RegExp(`^${READY}$`, 'm'));
    expect(output).toMatch(/demo model/);
    expect(output).toMatch(/architecture\s+Qwen3ForCausalLM/);
    expect(output).toMatch(/device\s+cpu/);
    expect(output).toMatch(/dtype\s+bfloat16/);
    expect(output).toMatch(/fa3 \(on a CPU, fa3, flashinfer and triton are all the contract's attention\)/);
    expect(output).toMatch(/weights\s+13\.9 MB/);
    const [curl = ''] = /^ *curl .*$/m.exec(output) ?? [];
    const answer = JSON.parse(execFileSync('bash', ['-c', `${curl} --silent`], { encoding: 'utf8' })) as { text: string };
    // What the demo model's card records for this prompt.
    expect(answer.text).toContain('A fox walks into a hotel and orders a soup.');
  });

  test('goes on when nobody reads its output any more', async () => {
    const program = await ready('--log-requests');
    const url = addressOf(program);
    program.child.stdout?.destroy();
    program.child.stderr?.destroy();
    for (let i = 0; i < 3; i++) {
      const body = JSON.stringify({ input_ids: [i], sampling_params: { max_new_tokens: 4 } });
      const headers = { 'content-type': 'application/json' };
      expect((await fetch(`${url}/generate`, { method: 'POST', headers, body })).status).toBe(200);
    }
    program.child.kill('SIGTERM');
    expect(await program.ended).toBe(0);
  });

  test.each(['SIGINT', 'SIGTERM'] as const)('%s stops it cleanly: requests are answered, nothing survives', async (signal) => {
    const program = await ready();
    const workers = descendants(program.child.pid ?? 0);
    expect(workers.length).toBeGreaterThan(0);
    const { answer } = await longRequest(program);
    program.child.kill(signal);
    const { status, body } = await answer;
    // It ended in the time that running requests get, or with an error that says why it did not.
    expect(body).toMatch(status === 200 ? /"completion_tokens":3000/ : /SHUTTING_DOWN/);
    expect(await program.ended).toBe(0);
    expect(await survivors(workers, 5)).toEqual([]);
  });

  test.each(['SIGINT', 'SIGTERM'] as const)('%s to the whole process group, as of a terminal or service, stops it cleanly', async (signal) => {
    const program = start(process.execPath, ['bin/detinfer.js', 'launch', ...ON_FREE_PORT]);
    running.push(program);
    await program.until(READY);
    const { answer } = await longRequest(program);
    process.kill(-program.child.pid!, signal);
    const { body } = await answer;
    expect(body).not.toContain('WORKER_DIED');
    expect(await program.ended).toBe(0);
    expect(program.output()).not.toContain('is gone');
  });

  test('a second Ctrl-C ends it at once', async () => {
    const program = await ready();
    const workers = descendants(program.child.pid ?? 0);
    // More than a fast machine does in the meantime.
    const { answer } = await longRequest(program, 100);
    program.child.kill('SIGINT');
    await program.until('SIGINT: stopping');
    // One keypress may arrive twice, so a second one must come later.
    await sleep(500);
    program.child.kill('SIGINT');
    expect(await program.ended).toBe(130);
    await expect(answer).rejects.toThrow();
    expect(await survivors(workers, 10)).toEqual([]);
  });

  test('Ctrl-C under npm start, where it arrives twice, stops it cleanly', async () => {
    const program = start('npm', ['start', '--', ...ON_FREE_PORT]);
    running.push(program);
    // It builds first, which takes its time on a busy machine even if there is nothing to do.
    await program.until(READY, 240);
    const processes = descendants(program.child.pid ?? 0);
    ctrlC(program);
    await program.ended;
    expect(program.output()).toContain('Stopped.');
    expect(await survivors(processes, 5)).toEqual([]);
  }, 300_000);

  test('a stop while weights are being made leaves nothing behind', async () => {
    const model = join(PACKAGE_ROOT, 'tests', 'fixtures', 'qwen3-0.6b-shape');
    const program = launch('--model-path', model, '--load-format', 'dummy', '--skip-tokenizer-init');
    running.push(program);
    await program.until('Loading weights: 25%');
    const workers = descendants(program.child.pid ?? 0);
    expect(workers.length).toBeGreaterThan(0);
    program.child.kill('SIGINT');
    expect(await program.ended).toBe(0);
    expect(program.output()).not.toContain(READY);
    expect(await survivors(workers, 5)).toEqual([]);
  });

  test('a killed parent leaves no worker, even in the middle of a request', async () => {
    const program = await ready();
    const workers = descendants(program.child.pid ?? 0);
    const { answer } = await longRequest(program);
    program.child.kill('SIGKILL');
    expect(await program.ended).toBe('SIGKILL');
    await expect(answer).rejects.toThrow();
    expect(await survivors(workers, 10)).toEqual([]);
  });

  test('a port in use is found before the weights are loaded', async () => {
    const holder = createServer().listen(0, '127.0.0.1');
    await new Promise((resolve) => holder.once('listening', resolve));
    const { port } = holder.address() as AddressInfo;
    const program = start(process.execPath, ['bin/detinfer.js', 'launch', '--port', String(port)]);
    const code = await program.ended;
    holder.close();
    expect(code).toBe(1);
    expect(program.output()).toBe(
      `error INVALID_FLAG: port ${port} of 127.0.0.1 is in use. Stop the program that listens there, or pass another --port.\n`,
    );
  });

  test('a truncated weight file ends the start with one error that names it', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'detinfer-truncated-'));
    try {
      cpSync(DEMO_MODEL_PATH, folder, { recursive: true });
      truncateSync(join(folder, 'model.safetensors'), 5_000_000);
      const program = launch('--model-path', folder);
      running.push(program);
      expect(await program.ended).toBe(1);
      expect(program.output()).toMatch(/^error INVALID_WEIGHTS: .*model\.safetensors/m);
      expect(program.output()).not.toContain(READY);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  test('a model without a tokenizer takes ids, and its curl example works', async () => {
    const model = join(PACKAGE_ROOT, 'tests', 'fixtures', 'qwen3-tiny');
    const program = await ready('--model-path', model, '--skip-tokenizer-init');
    const [curl = ''] = /^ *curl .*$/m.exec(program.output()) ?? [];
    const answer = JSON.parse(execFileSync('bash', ['-c', `${curl} --silent`], { encoding: 'utf8' })) as { output_ids: number[] };
    expect(answer.output_ids).toHaveLength(48);
  });
});
