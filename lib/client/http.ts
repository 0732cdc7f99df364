import { request, type Dispatcher } from 'undici';
import { DetinferError } from '../protocol/errors.js';
import { createAgent } from './agent.js';

/** A status other than 2xx. The message names the endpoint and holds the server's own words. */
export class HttpStatusError extends DetinferError {
  readonly httpStatus: number;

  constructor(endpoint: string, httpStatus: number, detail: string) {
    super('BAD_RESPONSE', `${endpoint} answered with status ${httpStatus}${detail === '' ? '' : `: ${detail}`}`);
    this.httpStatus = httpStatus;
  }
}

/** A long batch on a slow machine may take its time, but a server that is silent this long is taken for dead. */
const SILENCE_LIMIT_MS = 30 * 60_000;

/**
 * A JSON and server-sent-events client of one server.
 * Its methods throw DetinferError UNREACHABLE (no connection) or BAD_RESPONSE (HttpStatusError, or an answer of the
 * wrong kind).
 */
export class HttpClient {
  readonly baseUrl: string;
  readonly #agent: Dispatcher;

  /** @param apiKey null: the server asks for none. */
  constructor(baseUrl: string, apiKey: string | null = null) {
    this.baseUrl = baseUrl.replace(/\/+$/, '');
    this.#agent = createAgent(apiKey, SILENCE_LIMIT_MS);
  }

  /** The parsed JSON body of the answer. */
  async json(method: 'GET' | 'POST', path: string, body?: unknown): Promise<unknown> {
    const text = await this.text(method, path, body);
    try {
      return JSON.parse(text);
    } catch {
      throw new DetinferError(
        'BAD_RESPONSE',
        `${method} ${path} answered with something that is not JSON: ${excerpt(text)}`,
      );
    }
  }

  /** The body of the answer as text. */
  async text(method: 'GET' | 'POST', path: string, body?: unknown): Promise<string> {
    const response = await this.#send(method, path, body);
    return this.#reading(path, () => response.body.text());
  }

  /** The payloads of a stream of server-sent events, in order, up to but without [DONE]. */
  async *events(path: string, body: unknown): AsyncGenerator<string, void, undefined> {
    const response = await this.#send('POST', path, body);
    const decoder = new TextDecoder();
    const chunks = response.body[Symbol.asyncIterator]();
    let pending = '';
    let complete = false;
    try {
      for (;;) {
        const next = await this.#reading(path, () => chunks.next());
        pending += next.done ? decoder.decode() : decoder.decode(next.value as Uint8Array, { stream: true });
        const events = pending.split('\n\n');
        pending = events.pop() as string;
        for (const event of events) {
          const payload = event.startsWith('data:') ? event.slice('data:'.length).trim() : '';
          if (payload === '[DONE]') complete = true;
          else if (payload !== '') yield payload;
        }
        if (next.done) break;
      }
      if (!complete) throw new DetinferError('BAD_RESPONSE', `POST ${path}: the stream ended without [DONE]`);
    } finally {
      response.body.destroy();
    }
  }

  async close(): Promise<void> {
    await this.#agent.destroy();
  }

  async #send(method: 'GET' | 'POST', path: string, body: unknown): Promise<Dispatcher.ResponseData> {
    const response = await this.#reading(path, () =>
      request(`${this.baseUrl}${path}`, {
        method,
        dispatcher: this.#agent,
        headers: body === undefined ? {} : { 'content-type': 'application/json' },
        body: body === undefined ? null : JSON.stringify(body),
      }),
    );
    if (response.statusCode < 200 || response.statusCode > 299) {
      const text = await this.#reading(path, () => response.body.text());
      throw new HttpStatusError(`${method} ${path}`, response.statusCode, serverMessage(text));
    }
    return response;
  }

  /** Names the server and the reason when the connection fails. */
  async #reading<T>(path: string, action: () => Promise<T>): Promise<T> {
    try {
      return await action();
    } catch (error) {
      throw new DetinferError('UNREACHABLE', `could not reach ${this.baseUrl}${path}: ${reason(error)}`, {
        cause: error,
      });
    }
  }
}

/** The readable part of an error's body: {error: {message}}, FastAPI's {detail}, OpenAI's {message}, or text. */
function serverMessage(text: string): string {
  try {
    const body = JSON.parse(text) as { error?: { message?: unknown } | string; message?: unknown; detail?: unknown };
    const error = typeof body.error === 'object' ? body.error?.message : body.error;
    const message = error ?? body.message ?? body.detail;
    if (typeof message === 'string') return message;
  } catch {
    // Not JSON: the text itself is the message.
  }
  return excerpt(text);
}

function excerpt(text: string): string {
  const line = text.replace(/\s+/g, ' ').trim();
  return line.length > 300 ? `${line.slice(0, 300)}…` : line;
}

function reason(error: unknown): string {
  // With several addresses for one name, Node reports an AggregateError without a message.
  if (error instanceof AggregateError && error.errors.length > 0) return reason(error.errors[0]);
  if (!(error instanceof Error)) return String(error);
  return error.message;
}
