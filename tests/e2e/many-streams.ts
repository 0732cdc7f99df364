import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import { Agent } from 'undici';
import { ask, getJson } from './kill-load.js';
import { addressOf, descendants, type Program } from './program.js';

const WATCH_MS = 200;
const TEXTS = ['Once upon a time', 'Tell me a joke', 'What is the capital of France?', 'word '.repeat(60)];

export interface StreamsReport {
  /** Streams that were complete, and each event of which went on where the one before it ended. */
  complete: number;
  /** What became of the others. */
  errors: string[];
  /** Streams that were compared with the same request to the quiet server. */
  equal: number;
  different: string[];
  /** Most requests that the server had at the same time. */
  mostAtOnce: number;
  seconds: number;
  /** Most memory in use at any time, in bytes, and before the streams began. */
  memory: { server: number; worker: number; serverBefore: number; workerBefore: number };
}

/** A request that no other resembles but for the beginning of its prompt. */
function body(index: number): object {
  const text = `${TEXTS[index % TEXTS.length]} ${index}`;
  const sampling_params =
    index % 2 === 0
      ? { temperature: 0, max_new_tokens: 16 + (index % 17), ignore_eos: true }
      : { temperature: 0.9, top_p: 0.95, sampling_seed: index, max_new_tokens: 24 };
  return { text, sampling_params, stream: true, return_logprob: index % 8 === 0 };
}

/**
 * Opens streams all at once, then sends some of the same requests again one after another, and compares.
 * @param compared number of streams that are compared, evenly spread.
 */
export async function runStreams(server: Program, streams: number, compared: number): Promise<StreamsReport> {
  const agent = new Agent({ headersTimeout: 0, bodyTimeout: 0, connect: { timeout: 0 } });
  const url = addressOf(server);
  const before = memory(server);
  let isOver = false;
  let mostAtOnce = 0;
  const watch = async (): Promise<void> => {
    while (!isOver) {
      const { scheduler } = await getJson(agent, `${url}/server_info`);
      mostAtOnce = Math.max(mostAtOnce, scheduler.running_requests + scheduler.waiting_requests);
      await sleep(WATCH_MS);
    }
  };
  const watching = watch();
  const begin = performance.now();
  const answers = await Promise.all(
    Array.from({ length: streams }, (_, index) => ask(agent, url, body(index)).catch((error: unknown) => String(error))),
  );
  const seconds = (performance.now() - begin) / 1000;
  isOver = true;
  await watching;
  const after = memory(server);

  const isComplete = (answer: any): boolean =>
    answer.status === 200 && answer.answers.every(({ meta_info }: any) => meta_info?.finish_reason);
  const different: string[] = [];
  for (let i = 0; i < compared; i++) {
    const index = Math.floor((i * streams) / compared);
    const quiet = await ask(agent, url, body(index));
    if (isDeepStrictEqual(answers[index], quiet)) continue;
    different.push(`${JSON.stringify(body(index))}: ${JSON.stringify(answers[index])}, quiet: ${JSON.stringify(quiet)}`);
  }
  await agent.close();
  return {
    complete: answers.filter(isComplete).length,
    errors: answers.filter((answer) => !isComplete(answer)).map((answer) => JSON.stringify(answer)),
    equal: compared - different.length,
    different,
    mostAtOnce,
    seconds,
    memory: { server: after.server, worker: after.worker, serverBefore: before.server, workerBefore: before.worker },
  };
}

/** Most memory that the server, and its workers together, have had at any time. */
function memory({ child }: Program): { server: number; worker: number } {
  const workers = descendants(child.pid!);
  return { server: peakBytes(child.pid!), worker: workers.reduce((sum, pid) => sum + peakBytes(pid), 0) };
}

function peakBytes(pid: number): number {
  const [, kilobytes] = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? [];
  return Number(kilobytes) * 1024;
}
