import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

/** How a fixture server fails to be deterministic, or fails otherwise. */
export type Fault =
  /** One token differs in batches of 6 and more. */
  | 'batch-size'
  /** The same, but only the last bit of one logprob. */
  | 'last-bit'
  /** Same tokens, other text in batches of 6 and more. */
  | 'text'
  /** Other finish reason in batches of 6 and more. */
  | 'finish'
  /** The last bit of a logprob differs when a part of the prompt was cached. */
  | 'warm-cache'
  /** The last bit of prompt logprobs differs from what generation reports. */
  | 'scoring'
  /** One token differs while other requests run. */
  | 'traffic'
  /** One token differs where another prompt of the batch shares the first 8 tokens, in batches of 6 and more. */
  | 'shared-prefix'
  | 'flush-does-nothing'
  | 'no-cache'
  | 'abort'
  | 'answer-missing'
  | 'no-logprobs'
  | 'stream-breaks'
  | 'html'
  | 'status-500';

export interface FixtureOptions {
  faults?: Fault[];
  /** false: token ids in, token ids out. */
  tokenizer?: boolean;
  contextLength?: number;
  /** How long an answer takes. */
  delayMs?: number;
}

export interface FixtureServer {
  url: string;
  /** Bodies of all /generate requests. */
  requests: GenerateBody[];
  close(): Promise<void>;
}

interface GenerateBody {
  text?: string | string[];
  input_ids?: number[] | number[][];
  sampling_params: Record<string, number> | Record<string, number>[];
  return_logprob?: boolean;
  logprob_start_len?: number;
  token_ids_logprob?: number[];
  stream?: boolean;
}

const VOCAB_SIZE = 128;
const LARGE_BATCH = 6;
/** Index of the output token that a fault changes. */
const FAULTY_TOKEN = 4;

/**
 * A small server with the API of /generate over a toy model: token ids are character codes, and the next token and
 * every logprob are hashes of all tokens before. It is deterministic, but for its faults.
 */
export async function startFixtureServer(options: FixtureOptions = {}): Promise<FixtureServer> {
  const fixture = new Fixture(options);
  const server = createServer((request, response) => {
    fixture.handle(request, response).catch((error: unknown) => {
      sendJson(response, 400, { error: { message: error instanceof Error ? error.message : String(error) } });
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    requests: fixture.requests,
    async close() {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
}

class Fixture {
  readonly requests: GenerateBody[] = [];
  readonly #faults: Set<Fault>;
  readonly #tokenizer: boolean;
  readonly #contextLength: number;
  readonly #delayMs: number;
  #cache: number[][] = [];
  #running = 0;

  constructor({ faults = [], tokenizer = true, contextLength = 8192, delayMs = 0 }: FixtureOptions) {
    this.#faults = new Set(faults);
    this.#tokenizer = tokenizer;
    this.#contextLength = contextLength;
    this.#delayMs = delayMs;
  }

  async handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = (request.url ?? '').split('?')[0];
    if (path === '/generate') return this.#generate(JSON.parse(await bodyOf(request)) as GenerateBody, response);
    if (path === '/flush_cache') {
      if (!this.#faults.has('flush-does-nothing')) this.#cache = [];
      response.end('flushed');
      return;
    }
    if (path === '/detokenize' && this.#tokenizer) {
      const { tokens } = JSON.parse(await bodyOf(request)) as { tokens: number[] };
      return sendJson(response, 200, { text: String.fromCharCode(...tokens) });
    }
    if (path === '/server_info') {
      return sendJson(response, 200, {
        skip_tokenizer_init: !this.#tokenizer,
        version: 'fixture',
        vocab_size: VOCAB_SIZE,
      });
    }
    if (path === '/v1/models') {
      return sendJson(response, 200, { data: [{ id: 'toy', max_model_len: this.#contextLength }] });
    }
    sendJson(response, 404, { detail: 'Not Found' });
  }

  async #generate(body: GenerateBody, response: ServerResponse): Promise<void> {
    this.requests.push(body);
    if (this.#faults.has('html')) return void response.end('<html>welcome</html>');
    if (this.#faults.has('status-500')) return sendJson(response, 500, { error: { message: 'the engine failed' } });
    const prompts = this.#prompts(body);
    const isFlat = !Array.isArray(body.text ?? body.input_ids?.[0]);
    this.#running++;
    try {
      await sleep(this.#delayMs);
      const answers = prompts.map((prompt, i) => this.#answer(prompt, i, prompts, body));
      if (this.#faults.has('answer-missing')) answers.pop();
      if (body.stream) this.#sendStream(answers, response);
      else sendJson(response, 200, isFlat ? answers[0]?.at(-1) : answers.map((events) => events.at(-1)));
    } finally {
      this.#running--;
    }
  }

  #prompts({ text, input_ids: ids }: GenerateBody): number[][] {
    if (text !== undefined && !this.#tokenizer) throw new Error('this server takes input_ids only');
    if (text !== undefined) return [text].flat().map((one) => [...one].map((character) => character.charCodeAt(0)));
    return Array.isArray(ids?.[0]) ? (ids as number[][]) : [ids as number[]];
  }

  /** The events of one answer as a stream has them; the last is the whole answer. */
  #answer(prompt: number[], index: number, prompts: number[][], body: GenerateBody): object[] {
    const sampling = (Array.isArray(body.sampling_params) ? body.sampling_params[index] : body.sampling_params) ?? {};
    const maxNewTokens = sampling.max_new_tokens ?? 128;
    if (prompt.length + maxNewTokens > this.#contextLength) throw new Error('the prompt is too long for the context');
    const large = prompts.length >= LARGE_BATCH;
    const cached = this.#cachedTokens(prompt);
    const shared = prompts.some((other, i) => i !== index && sharedLength(other, prompt) >= Math.min(8, prompt.length));
    const wrongToken =
      (large && this.#faults.has('batch-size')) ||
      (large && shared && this.#faults.has('shared-prefix')) ||
      (this.#running > 1 && this.#faults.has('traffic'));

    const ids = [...prompt];
    let state = prompt.reduce(extendState, EMPTY_STATE);
    const logprobs: unknown[] = [];
    const events: object[] = [];
    for (let i = 0; i < maxNewTokens; i++) {
      const token = nextToken(state, sampling.temperature ?? 1) ^ (wrongToken && i === FAULTY_TOKEN ? 1 : 0);
      const offBit =
        (large && this.#faults.has('last-bit') && i === FAULTY_TOKEN) || (cached > 0 && this.#faults.has('warm-cache'));
      const value = logprob(state, token);
      logprobs.push([offBit ? nextFloat(value) : value, token, null]);
      ids.push(token);
      state = extendState(state, token);
      events.push(this.#event(prompt, ids, logprobs, i + 1 === maxNewTokens, index, cached, large, body));
    }
    if (maxNewTokens === 0) events.push(this.#event(prompt, ids, logprobs, true, index, cached, large, body));
    this.#cache.push(ids);
    return events;
  }

  #event(
    prompt: number[],
    ids: number[],
    logprobs: unknown[],
    finished: boolean,
    index: number,
    cached: number,
    large: boolean,
    body: GenerateBody,
  ): object {
    const output = ids.slice(prompt.length);
    const text = String.fromCharCode(...output) + (large && this.#faults.has('text') ? '!' : '');
    const type = large && this.#faults.has('finish') ? 'stop' : 'length';
    const finish = this.#faults.has('abort')
      ? { type: 'abort', message: 'out of memory' }
      : { type, length: output.length };
    const withLogprobs = body.return_logprob === true && !this.#faults.has('no-logprobs');
    return {
      ...(this.#tokenizer ? { text } : {}),
      output_ids: output,
      meta_info: {
        finish_reason: finished ? finish : null,
        prompt_tokens: prompt.length,
        completion_tokens: output.length,
        cached_tokens: cached,
        ...(withLogprobs ? { output_token_logprobs: [...logprobs] } : {}),
        ...(withLogprobs && finished && body.logprob_start_len === 0
          ? this.#promptLogprobs(prompt, body.token_ids_logprob)
          : {}),
      },
      ...(body.stream ? { index } : {}),
    };
  }

  #promptLogprobs(prompt: number[], tokenIds: number[] | undefined): object {
    const offBit = this.#faults.has('scoring');
    const tokens: unknown[] = [];
    const chosen: unknown[] = [];
    let state = EMPTY_STATE;
    prompt.forEach((token, i) => {
      const value = logprob(state, token);
      tokens.push([i === 0 ? null : offBit && i % 7 === 5 ? nextFloat(value) : value, token, null]);
      chosen.push(i === 0 ? null : (tokenIds ?? []).map((id) => [logprob(state, id), id, null]));
      state = extendState(state, token);
    });
    return { input_token_logprobs: tokens, ...(tokenIds ? { input_token_ids_logprobs: chosen } : {}) };
  }

  #cachedTokens(prompt: number[]): number {
    if (this.#faults.has('no-cache')) return 0;
    return Math.max(0, ...this.#cache.map((ids) => Math.min(sharedLength(ids, prompt), prompt.length - 1)));
  }

  #sendStream(answers: object[][], response: ServerResponse): void {
    const steps = Math.max(...answers.map((events) => events.length));
    for (let i = 0; i < steps; i++) {
      for (const events of answers) if (events[i]) response.write(`data: ${JSON.stringify(events[i])}\n\n`);
      if (this.#faults.has('stream-breaks')) return void response.end();
    }
    response.end('data: [DONE]\n\n');
  }
}

const EMPTY_STATE = 0x811c9dc5;

/** Hash of all tokens so far, one token later. */
function extendState(state: number, token: number): number {
  return Math.imul(state ^ token, 0x01000193) >>> 0;
}

function mix(state: number): number {
  const bits = Math.imul(state ^ (state >>> 15), 0x2c1b3c6d);
  return (bits ^ (bits >>> 12)) >>> 0;
}

function nextToken(state: number, temperature: number): number {
  return 32 + (mix(state + temperature * 1000) % 94);
}

function logprob(state: number, token: number): number {
  return Math.fround(-(1 + (mix(extendState(state, token)) % 100_000)) / 9973);
}

/** The neighbour of a float32, one unit in the last place away. */
function nextFloat(value: number): number {
  const view = new DataView(new ArrayBuffer(4));
  view.setFloat32(0, value);
  view.setUint32(0, view.getUint32(0) + 1);
  return view.getFloat32(0);
}

function sharedLength(a: number[], b: number[]): number {
  let length = 0;
  while (length < a.length && length < b.length && a[length] === b[length]) length++;
  return length;
}

async function bodyOf(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString();
}

function sendJson(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
}
