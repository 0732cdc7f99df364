import { afterEach, describe, expect, test } from '@jest/globals';
import { runUnderKills } from './kill-load.js';
import { addressOf, descendants, killGroup, launch, READY, survivors, untilItRuns, type Program } from './program.js';

const MINUTES = 60_000;
const running: Program[] = [];

afterEach(async () => {
  running.forEach(killGroup);
  await Promise.all(running.splice(0).map((program) => program.ended));
});

async function ready(...flags: string[]): Promise<Program> {
  const program = launch('--max-total-tokens', '16384', ...flags);
  running.push(program);
  await program.until(READY);
  return program;
}

async function stop(program: Program): Promise<void> {
  const workers = descendants(program.child.pid ?? 0);
  program.child.kill('SIGTERM');
  expect(await program.ended).toBe(0);
  expect(await survivors(workers, 10)).toEqual([]);
}

function generate(program: Program, body: object): Promise<{ status: number; json: any }> {
  return fetch(`${addressOf(program)}/generate`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  }).then(async (response) => ({ status: response.status, json: await response.json() }));
}

describe('workers that are killed', () => {
  test.each([
    [1, 12],
    [2, 12],
  ])('--dp-size %s, %s times: no answer differs, none is lost, no process is left', async (dpSize, kills) => {
    const program = await ready('--dp-size', String(dpSize));
    const report = await runUnderKills(program, kills);
    expect(report.wrong.slice(0, 3).map((answer) => answer.slice(0, 1000))).toEqual([]);
    expect(report.equal).toBeGreaterThan(0);
    expect(report.replays).toBeGreaterThan(0);
    await stop(program);
  }, 5 * MINUTES);
});

describe('a request over which workers crash', () => {
  /** Kills the worker as a fault in the engine would, once it has begun with the only request. */
  async function crash(program: Program): Promise<void> {
    await untilItRuns(program);
    const workers = descendants(program.child.pid ?? 0);
    for (const pid of workers) process.kill(pid, 'SIGSEGV');
    expect(await survivors(workers, 30)).toEqual([]);
  }

  test('fails at the third, and the server goes on', async () => {
    const program = await ready('--chunked-prefill-size', '16');
    const answer = generate(program, { input_ids: new Array(4000).fill(7), sampling_params: { max_new_tokens: 1 } });
    for (let i = 0; i < 3; i++) await crash(program);
    const { status, json } = await answer;
    expect([status, json.error.code]).toEqual([500, 'WORKER_DIED']);
    expect(json.error.message).toMatch(/died 3 times over this request, at last: the worker process was killed by SIGSEGV/);
    expect((await generate(program, { text: '2 + 3 =', sampling_params: { temperature: 0, max_new_tokens: 2 } })).json.text).toBe(' 5');
    await stop(program);
  });
});
