import { readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { Agent, request } from 'undici';
import { addressOf, descendants, killGroup, launch, READY, type Program } from '../e2e/program.js';
import { generateBody, openaiRequest, otherRequest, rawRequest, trainingRequest } from './bodies.js';

const MINUTES = 60_000;
/** What a leak of some 30 kB per request would add. */
const GROWTH_LIMIT = 250e6;
/** A request that takes longer hangs, even on a busy machine. */
const HANG_MS = 60_000;

let server: Program;
let url = '';
let workers: number[] = [];
const MAX_BODY = 1_000_000;
/** Requests that are sent at the same time. */
const AT_ONCE = 10;
const agent = new Agent({ headersTimeout: HANG_MS, bodyTimeout: HANG_MS });

beforeAll(async () => {
  server = launch('--max-total-tokens', '4096', '--context-length', '64', '--max-body-size', String(MAX_BODY));
  await server.until(READY);
  url = addressOf(server);
  workers = descendants(server.child.pid ?? 0);
});

afterAll(async () => {
  await agent.destroy();
  killGroup(server);
  await server.ended;
});

interface Sent {
  path: string;
  method?: 'POST' | 'PUT' | 'GET' | 'DELETE' | 'PATCH';
  type?: string;
  body: string | Buffer;
}

/** Sends a request and checks its answer: one that succeeds, or an error of the client's with a message. */
async function check({ path, method = 'POST', type = 'application/json', body }: Sent): Promise<void> {
  const sending = request(url + path, {
    method,
    dispatcher: agent,
    headers: { 'content-type': type },
    body: method === 'GET' ? null : body,
  });
  // The server need not read a body that is too large: the connection may close before all of it is written.
  const response = await sending.catch((error: Error) => {
    if (body.length <= MAX_BODY) throw error;
  });
  if (response === undefined) return;
  const { statusCode } = response;
  const text = await response.body.text();
  if (statusCode === 200) return;
  if (statusCode < 400 || statusCode >= 500) throw new Error(`status ${statusCode}: ${text}`);
  const answer = JSON.parse(text) as { message?: unknown; error?: { message?: unknown } };
  if (typeof (answer.message ?? answer.error?.message) !== 'string') throw new Error(`no message: ${text}`);
}

/** Bytes in memory of a process. */
function residentBytes(pid: number): number {
  const [, kilobytes] = /^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? [];
  return Number(kilobytes) * 1024;
}

const json = (body: unknown): string => JSON.stringify(body);
/** Checks `count` requests, some at a time. Says which of them, made as small as it gets, fails. */
async function checkAll<T>(count: number, arbitrary: fc.Arbitrary<T>, toRequest: (value: T) => Sent): Promise<void> {
  const several = fc.array(arbitrary, { minLength: AT_ONCE, maxLength: AT_ONCE });
  const property = fc.asyncProperty(several, async (values) => {
    await Promise.all(values.map((value) => check(toRequest(value))));
  });
  await fc.assert(property, { numRuns: count / AT_ONCE });
}

describe('12,700 requests that are wrong', () => {
  let before = 0;

  test('bodies of /generate', async () => {
    const toRequest = (body: unknown): Sent => ({ path: '/generate', body: json(body) });
    await checkAll(1000, generateBody, toRequest);
    before = residentBytes(server.child.pid!);
    await checkAll(5000, generateBody, toRequest);
  }, 5 * MINUTES);

  test('bodies of other endpoints', async () => {
    await checkAll(2000, otherRequest, ({ path, body }) => ({ path, body: json(body) }));
  }, 5 * MINUTES);

  test("bodies of OpenAI's endpoints", async () => {
    await checkAll(2000, openaiRequest, ({ path, body }) => ({ path, body: json(body) }));
  }, 5 * MINUTES);

  test("bodies of a trainer's endpoints", async () => {
    try {
      await checkAll(500, trainingRequest, ({ path, body }) => ({ path, body: json(body) }));
    } finally {
      await check({ path: '/continue_generation', body: '{}' });
    }
  }, 5 * MINUTES);

  test('bytes, cut bodies, paths, methods and content types', async () => {
    await checkAll(2000, rawRequest, (raw) => raw);
  }, 5 * MINUTES);

  test('clients that break off, dribble, or do not speak HTTP', async () => {
    const whole = json({ text: 'a', sampling_params: { max_new_tokens: 1 } });
    const head = (length: number | string): string => `POST /generate HTTP/1.1\r\nHost: x\r\nContent-Length: ${length}\r\n\r\n`;
    const openings = [
      ...['', 'G', 'GET', '\r\n\r\n', '\x16\x03\x01\x02\x00', 'GET / HTTP/9.9\r\n\r\n', 'POST /generate HTTP/1.1\r\n\r\n'],
      ...[head(-1), head('x'), head(1e15), head(whole.length), head(whole.length) + whole.slice(0, 5), head(3) + whole],
      ...[`GET / HTTP/1.1\r\nHost: x\r\nX: ${'y'.repeat(100_000)}\r\n\r\n`, `${head(5)}12345${head(4)}1234`],
      ...['POST /generate HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n', head(whole.length) + whole],
    ];
    const { hostname, port } = new URL(url);
    const sendRaw = async (opening: string, isSlow: boolean): Promise<void> => {
      const socket = connect(Number(port), hostname);
      socket.on('error', () => {});
      socket.resume();
      for (const piece of isSlow ? opening.slice(0, 200) : [opening]) {
        socket.write(piece);
        if (isSlow) await sleep(1);
      }
      await sleep(20);
      socket.destroy();
    };
    for (let round = 0; round < 6; round++) {
      await Promise.all(openings.flatMap((opening) => [sendRaw(opening, false), sendRaw(opening, true)]));
    }
    // Connections that stay half open all the while take nothing from others.
    const idle = Array.from({ length: 100 }, () => connect(Number(port), hostname).on('error', () => {}));
    for (const socket of idle) socket.write(head(100));
    await check({ path: '/generate', body: whole });
    for (const socket of idle) socket.destroy();
  }, 5 * MINUTES);

  test('leave the server as it was: the same worker, idle, no memory lost, right answers', async () => {
    expect(descendants(server.child.pid ?? 0)).toEqual(workers);
    const info = (await (await fetch(`${url}/server_info`)).json()) as any;
    expect(info.worker_deaths).toBe(0);
    const busy = async (): Promise<number> => {
      const { scheduler } = (await (await fetch(`${url}/server_info`)).json()) as any;
      return scheduler.running_requests + scheduler.waiting_requests;
    };
    for (let tries = 0; (await busy()) > 0; tries++) {
      if (tries > 600) throw new Error('requests of clients that have gone still run');
      await sleep(100);
    }
    expect(residentBytes(server.child.pid!) - before).toBeLessThan(GROWTH_LIMIT);
    expect(server.output()).not.toContain('unexpected error');
    const response = await fetch(`${url}/generate`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: json({ text: '2 + 3 =', sampling_params: { temperature: 0, max_new_tokens: 2 } }),
    });
    expect(((await response.json()) as any).text).toBe(' 5');
  });
});
