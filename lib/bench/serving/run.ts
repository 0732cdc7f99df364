import { setTimeout as sleep } from 'node:timers/promises';
import type { Dispatcher } from 'undici';
import { createAgent } from '../../client/agent.js';
import { HttpClient, HttpStatusError } from '../../client/http.js';
import { SeededRandom } from '../../client/random.js';
import { readEngineCpuSeconds, readServerFacts, type ServerFacts } from '../../client/server-facts.js';
import { DetinferError } from '../../protocol/errors.js';
import { readCpuUsage, usageBetween, type CpuUsage } from './cpu-usage.js';
import { summarize, type ServingMetrics } from './metrics.js';
import { sendMeasured } from './send.js';
import type { PlannedRequest, ServingOptions, Timing } from './types.js';
import { planWorkload } from './workload.js';

const WARMUP_TOKENS = 16;

export interface ServingReport {
  url: string;
  server: ServerFacts;
  options: ServingOptions;
  metrics: ServingMetrics;
  /** CPU seconds, where the server is one's own. */
  cpu: CpuUsage | null;
  /** The first failure, or null. */
  firstError: string | null;
}

/**
 * Sends a random workload to a server and measures it.
 * @param serverPid process id of a server on this machine, to measure its CPU time, or null
 * @param onDone called after each request
 * @throws DetinferError when the server can't be measured at all.
 */
export async function benchServing(
  url: string,
  serverPid: number | null,
  options: ServingOptions,
  onDone: () => void,
  apiKey: string | null = null,
): Promise<ServingReport> {
  const client = new HttpClient(url, apiKey);
  const dispatcher = createAgent(apiKey, 0);
  try {
    const server = await readServerFacts(client);
    const vocabSize = checkFit(server, options);
    const workload = planWorkload(options, vocabSize);
    await warmUp(dispatcher, client, vocabSize, options);

    const readCpu = async (): Promise<CpuUsage | null> =>
      serverPid === null ? null : readCpuUsage(serverPid, await readEngineCpuSeconds(client));
    const cpuBefore = await readCpu();
    const start = performance.now();
    const timings = await sendAll(dispatcher, client.baseUrl, workload, options, onDone);
    const seconds = (performance.now() - start) / 1000;
    const cpuAfter = await readCpu();
    return {
      url: client.baseUrl,
      server,
      options,
      metrics: summarize(timings, seconds),
      cpu: cpuBefore && cpuAfter && usageBetween(cpuBefore, cpuAfter),
      firstError: timings.find((timing) => timing.error !== null)?.error ?? null,
    };
  } finally {
    await dispatcher.destroy();
    await client.close();
  }
}

function checkFit({ vocabSize, contextLength }: ServerFacts, options: ServingOptions): number {
  const longest = options.randomInputLen + options.randomOutputLen;
  if (contextLength !== null && longest > contextLength) {
    throw new DetinferError(
      'INVALID_FLAG',
      `--random-input-len and --random-output-len make up to ${longest} tokens, ` +
        `the server's context has ${contextLength}`,
    );
  }
  const size = options.vocabSize ?? vocabSize;
  if (size === null) {
    throw new DetinferError('INVALID_FLAG', 'the server does not report its vocabulary size: pass --vocab-size');
  }
  return size;
}

/** One request that no later one resembles, then an empty prefix cache, so that a second run measures the same. */
async function warmUp(
  dispatcher: Dispatcher,
  client: HttpClient,
  vocabSize: number,
  options: ServingOptions,
): Promise<void> {
  const inputIds = new SeededRandom(options.seed + 1).tokenIds(
    Math.min(WARMUP_TOKENS, options.randomInputLen),
    vocabSize,
  );
  const outputLength = Math.min(WARMUP_TOKENS, options.randomOutputLen);
  const { error } = await sendMeasured(dispatcher, client.baseUrl, { inputIds, outputLength, arrival: 0 }, options);
  if (error !== null) throw new DetinferError('BAD_RESPONSE', `the warm-up request failed: ${error}`);
  try {
    await client.text('POST', '/flush_cache?timeout=30');
  } catch (error) {
    // A server without the endpoint has nothing to flush, or no way to.
    if (!(error instanceof HttpStatusError && error.httpStatus === 404)) throw error;
  }
}

/** Sends each request at its arrival, or later when as many as allowed are in flight. */
async function sendAll(
  dispatcher: Dispatcher,
  url: string,
  workload: PlannedRequest[],
  options: ServingOptions,
  onDone: () => void,
): Promise<Timing[]> {
  const inFlight = new Set<Promise<void>>();
  const timings: Timing[] = [];
  const start = performance.now();
  for (const planned of workload) {
    const wait = planned.arrival * 1000 - (performance.now() - start);
    if (wait > 0) await sleep(wait);
    while (inFlight.size >= (options.maxConcurrency ?? Infinity)) await Promise.race(inFlight);
    const sending = sendMeasured(dispatcher, url, planned, options).then((timing) => {
      timings.push(timing);
      inFlight.delete(sending);
      onDone();
    });
    inFlight.add(sending);
  }
  await Promise.all(inFlight);
  return timings;
}
