import { setTimeout as sleep } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import { Agent, request } from 'undici';
import { addressOf, descendants, isAlive, survivors, type Program } from './program.js';

/** Clients that send at the same time. */
const CLIENTS = 8;
/** Longest pause between the moment at which a worker is ready and its death. */
const LONGEST_LIFE_MS = 1200;
const NOTICE_MS = 50;
/** Share of the kills that do not wait until a worker is ready. */
const EARLY_KILLS = 0.1;

const TEXTS = ['Once upon a time', 'Tell me a joke', 'What is the capital of France?', 'word '.repeat(120)];
const SCORES = { return_logprob: true, logprob_start_len: 0, top_logprobs_num: 2, token_ids_logprob: [5, 6] };

/** Long enough texts, so that workers die in the middle of them; some end before they are complete. */
const SCHEMA = JSON.stringify({
  type: 'object',
  properties: {
    name: { type: 'string', minLength: 12 },
    tags: { type: 'array', items: { type: 'integer' }, minItems: 3 },
  },
  required: ['name', 'tags'],
});

/** One request of each kind whose answer depends on what came before in it; streams and plain answers. */
const BODIES: object[] = [
  { sampling_params: { temperature: 0, max_new_tokens: 80, ignore_eos: true } },
  { sampling_params: { temperature: 1, max_new_tokens: 50, sampling_seed: 1 }, ...SCORES },
  { sampling_params: { temperature: 0.8, top_p: 0.9, top_k: 30, min_p: 0.01, max_new_tokens: 40, sampling_seed: 2, n: 3 } },
  {
    sampling_params: {
      ...{ temperature: 1, frequency_penalty: 1, presence_penalty: 0.5, repetition_penalty: 1.2, sampling_seed: 3 },
      ...{ max_new_tokens: 80, ignore_eos: true },
    },
  },
  { sampling_params: { temperature: 0, min_new_tokens: 30, max_new_tokens: 60, stop_token_ids: [13], logit_bias: { '300': 1 } } },
  { sampling_params: { temperature: 0.7, max_new_tokens: 100, sampling_seed: 4, stop: ['fox', ' the '], stop_regex: '[0-9]+' } },
  { sampling_params: { temperature: 1, max_new_tokens: 60, sampling_seed: 6, json_schema: SCHEMA } },
  { sampling_params: { temperature: 0.8, max_new_tokens: 60, sampling_seed: 7, regex: '([A-Z][a-z]{2,8} ){8,20}[0-9]{4}' } },
  { text: TEXTS, sampling_params: { temperature: 0.9, max_new_tokens: 25, sampling_seed: 5 }, ...SCORES },
].flatMap((body) => [false, true].map((stream) => ({ text: TEXTS[0], ...body, stream })));

export interface KillReport {
  kills: number;
  /** Answers that were complete and equal to those of an undisturbed server. */
  equal: number;
  /** Answers that were not, with the body that got them. */
  wrong: string[];
  /** What the server says about it. */
  workerDeaths: number;
  replays: number;
}

/**
 * Sends every kind of request to a server, undisturbed, and then again from several clients without end while workers
 * are killed at random moments; compares the answers bit for bit.
 * @param onKill called with the number of kills so far
 */
export async function runUnderKills(server: Program, kills: number, onKill = (_: number): void => {}): Promise<KillReport> {
  const agent = new Agent({ headersTimeout: 0, bodyTimeout: 0 });
  const url = addressOf(server);
  const expected: unknown[] = [];
  for (const body of BODIES) expected.push(await ask(agent, url, body));

  const report: KillReport = { kills: 0, equal: 0, wrong: [], workerDeaths: 0, replays: 0 };
  let isOver = false;
  const client = async (first: number): Promise<void> => {
    for (let i = first; !isOver; i++) {
      const index = i % BODIES.length;
      const answer = await ask(agent, url, BODIES[index]!).catch((error: unknown) => String(error));
      if (isDeepStrictEqual(answer, expected[index])) report.equal++;
      else report.wrong.push(`${JSON.stringify(BODIES[index])}: ${JSON.stringify(answer)}`);
    }
  };
  const clients = Array.from({ length: CLIENTS }, (_, i) => client(i * 3));
  while (report.kills < kills) {
    if (Math.random() >= EARLY_KILLS) await untilHealthy(agent, url);
    await sleep(Math.random() * LONGEST_LIFE_MS);
    if (await killWorker(server)) onKill(++report.kills);
  }
  isOver = true;
  await Promise.all(clients);
  const { worker_deaths, replays } = await getJson(agent, `${url}/server_info`);
  await agent.close();
  return { ...report, workerDeaths: worker_deaths, replays };
}

/** @returns false when there is no worker at this moment. */
async function killWorker(server: Program): Promise<boolean> {
  const workers = descendants(server.child.pid ?? 0).filter(isAlive);
  if (workers.length === 0) return false;
  const worker = workers[Math.floor(Math.random() * workers.length)]!;
  try {
    process.kill(worker, 'SIGKILL');
  } catch {
    return false; // It has ended just now.
  }
  await survivors([worker], 10);
  // Until the server has noticed, its health is that of before.
  await sleep(NOTICE_MS);
  return true;
}

/** An answer without what may differ: times, and what was found in the cache. A stream's is that of its last events. */
export async function ask(agent: Agent, url: string, body: object): Promise<unknown> {
  const response = await request(`${url}/generate`, {
    method: 'POST',
    dispatcher: agent,
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  });
  const text = await response.body.text();
  const answers = 'stream' in body && body.stream === true ? lastEvents(text) : [JSON.parse(text)].flat();
  for (const { meta_info } of answers) for (const key of ['id', 'e2e_latency', 'cached_tokens']) delete meta_info?.[key];
  return { status: response.statusCode, answers };
}

/** The last event of each index. Throws unless every event goes on where the one before it ended. */
function lastEvents(text: string): any[] {
  const payloads = text.split('\n\n').map((event) => event.replace(/^data: /, ''));
  if (payloads.at(-2) !== '[DONE]') throw new Error(`the stream is cut off: ${text.slice(-200)}`);
  const last: any[] = [];
  for (const event of payloads.slice(0, -2).map((payload) => JSON.parse(payload))) {
    const before = last[event.index ?? 0];
    if (before !== undefined && !continues(before, event)) throw new Error(`a stream went back: ${JSON.stringify(event)}`);
    last[event.index ?? 0] = event;
  }
  return last;
}

function continues(before: any, event: any): boolean {
  const ids = event.output_ids.slice(0, before.output_ids.length);
  return event.text.startsWith(before.text) && isDeepStrictEqual(ids, before.output_ids);
}

async function untilHealthy(agent: Agent, url: string): Promise<void> {
  for (;;) {
    const { statusCode, body } = await request(`${url}/health`, { dispatcher: agent });
    await body.dump();
    if (statusCode === 200) return;
    await sleep(20);
  }
}

export async function getJson(agent: Agent, url: string): Promise<any> {
  return (await request(url, { dispatcher: agent })).body.json();
}
