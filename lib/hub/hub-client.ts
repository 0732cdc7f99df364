import { listFiles, modelInfo } from '@huggingface/hub';
import { EnvHttpProxyAgent, fetch, request, type Dispatcher } from 'undici';
import { DetinferError } from '../protocol/errors.js';
import { HubProblem, networkProblem } from './problems.js';
import {
  isTemporaryStatus,
  retryAfterMs,
  TemporaryError,
  withRetries,
  type RetryOptions,
  type RetryPolicy,
} from './retry.js';
import type { HubSettings } from './settings.js';

export interface Checksum {
  /** SHA-256 of the bytes, or the id that git gives to a file with them. */
  algorithm: 'sha256' | 'git';
  /** The hub's name for the bytes, too: their etag, and so the name of their blob in the cache. */
  hex: string;
}

/** A file of a repository at one commit. */
export interface RemoteFile {
  path: string;
  size: number;
  checksum: Checksum;
}

/** Where the bytes of a file can be had. */
export interface Location {
  url: string;
  headers: Record<string, string>;
}

export interface HubClientOptions {
  settings: HubSettings;
  /** Sent as User-Agent. */
  userAgent: string;
  retries: RetryPolicy;
  onRetry: (problem: string, waitMs: number) => void;
  signal: AbortSignal;
}

const CONNECT_LIMIT_MS = 15_000;
/** A server that sends nothing for this long is taken for dead. */
const SILENCE_LIMIT_MS = 60_000;

/**
 * The hub's HTTP interface. Revisions and listings come through @huggingface/hub, which knows the formats; it is
 * given a `fetch` of ours, because its own knows no proxies and no repetition, takes no token but those that begin
 * with hf_, and drops the headers that say what a failure means. The token goes to the hub's origin alone.
 */
export class HubClient {
  readonly #options: HubClientOptions;
  readonly #dispatcher: Dispatcher;
  readonly #origin: string;

  constructor(options: HubClientOptions) {
    this.#options = options;
    this.#origin = new URL(options.settings.endpoint).origin;
    this.#dispatcher = new EnvHttpProxyAgent({
      connect: { timeout: CONNECT_LIMIT_MS },
      headersTimeout: SILENCE_LIMIT_MS,
      bodyTimeout: SILENCE_LIMIT_MS,
    });
  }

  /**
   * The commit that a branch, a tag or a commit names now.
   * @param attempts failures in a row before giving up
   */
  async resolveRevision(repo: string, revision: string, attempts: number): Promise<string> {
    const library = this.#library(repo, revision, attempts);
    const problem = new HubProblem(this.#options.settings, repo, revision);
    return understood(problem, async () => {
      const info = await modelInfo({ name: repo, revision, additionalFields: ['sha'], ...library });
      if (typeof info.sha === 'string' && /^[0-9a-f]{40}$/.test(info.sha)) return info.sha;
      throw problem.unusable('names no commit');
    });
  }

  /** Every file of a commit. */
  async listFiles(repo: string, commit: string): Promise<RemoteFile[]> {
    const problem = new HubProblem(this.#options.settings, repo, commit);
    return understood(problem, async () => {
      const files: RemoteFile[] = [];
      const listing = listFiles({ repo, revision: commit, recursive: true, ...this.#library(repo, commit) });
      for await (const { type, path, size: plainSize, oid, lfs } of listing) {
        if (type !== 'file') continue;
        const size = lfs?.size ?? plainSize;
        const checksum: Checksum = lfs ? { algorithm: 'sha256', hex: lfs.oid } : { algorithm: 'git', hex: oid ?? '' };
        // It becomes the name of a file in the cache.
        if (!/^[0-9a-f]{40,64}$/.test(checksum.hex)) throw problem.unusable(`gives no usable checksum for ${path}`);
        if (!Number.isInteger(size) || size < 0) throw problem.unusable(`gives no usable size for ${path}`);
        files.push({ path, size, checksum });
      }
      return files;
    });
  }

  /** Asks where a file lies, which for large ones is a server of another origin, behind a link that expires. */
  async locate(repo: string, commit: string, { path, size }: RemoteFile, signal: AbortSignal): Promise<Location> {
    const problem = new HubProblem(this.#options.settings, repo, commit);
    const escaped = path.split('/').map(encodeURIComponent).join('/');
    let url = new URL(`${this.#options.settings.endpoint}/${repo}/resolve/${commit}/${escaped}`);
    const ask = async (): Promise<Dispatcher.ResponseData> => {
      // A repository that was renamed answers with its new address on the same origin.
      for (let redirects = 0; ; redirects += 1) {
        const answer = await this.request(url, this.#headers(url), signal, 'HEAD');
        await answer.body.dump();
        if (isTemporaryStatus(answer.statusCode)) throw temporary(url, answer);
        const next = redirectTarget(url, answer, problem);
        if (next === null || next.origin !== this.#origin || header(answer, 'x-linked-etag') !== null) return answer;
        if (redirects === 5) throw problem.unusable('redirects in a circle');
        url = next;
      }
    };
    const answer = await this.#retried(ask, { signal });
    if (answer.statusCode >= 400) throw problem.ofStatus(answer.statusCode, header(answer, 'x-error-code'), path);
    const target = redirectTarget(url, answer, problem);
    // The length of an answer that redirects is that of its own body.
    const said = header(answer, 'x-linked-size') ?? (target === null ? header(answer, 'content-length') : null);
    if (said !== null && Number(said) !== size) {
      throw problem.unusable(`gives two sizes for ${path}, ${size} and ${said} bytes`);
    }
    return { url: (target ?? url).href, headers: this.#headers(target ?? url) };
  }

  /**
   * One request; redirects are not followed. Network failures are TemporaryError.
   */
  async request(
    url: string | URL,
    headers: Record<string, string>,
    signal: AbortSignal,
    method: 'GET' | 'HEAD' = 'GET',
  ): Promise<Dispatcher.ResponseData> {
    try {
      return await request(url, { method, headers, signal, dispatcher: this.#dispatcher });
    } catch (error) {
      signal.throwIfAborted();
      throw networkProblem(new URL(url).host, error);
    }
  }

  async close(): Promise<void> {
    await this.#dispatcher.destroy();
  }

  /** What every call of the library gets. */
  #library(repo: string, revision: string, attempts?: number): { hubUrl: string; fetch: typeof globalThis.fetch } {
    const problem = new HubProblem(this.#options.settings, repo, revision);
    const send = (url: string, init: RequestInit = {}): Promise<unknown> => {
      return this.#retried(() => this.#fetch(problem, url, init), attempts === undefined ? {} : { attempts });
    };
    return { hubUrl: this.#options.settings.endpoint, fetch: send as typeof globalThis.fetch };
  }

  async #fetch(problem: HubProblem, url: string, init: RequestInit): Promise<unknown> {
    const { signal } = this.#options;
    const headers = { ...(init.headers as Record<string, string> | undefined), ...this.#headers(new URL(url)) };
    try {
      // Redirects are followed: fetch drops the token where one leaves the origin.
      const answer = await fetch(url, { headers, signal, dispatcher: this.#dispatcher });
      const body = await answer.arrayBuffer();
      const { status } = answer;
      if (isTemporaryStatus(status)) {
        const waitMs = retryAfterMs(answer.headers.get('retry-after'));
        throw new TemporaryError(`${new URL(url).host} answered with status ${status}`, { waitMs });
      }
      if (!answer.ok) throw problem.ofStatus(status, answer.headers.get('x-error-code'));
      return new Response(body, { status, headers: Object.fromEntries(answer.headers) });
    } catch (error) {
      signal.throwIfAborted();
      if (error instanceof TemporaryError || error instanceof DetinferError) throw error;
      throw networkProblem(new URL(url).host, error);
    }
  }

  /** Repeats what fails for the moment, and says in the end that the hub can't be reached. */
  async #retried<T>(action: () => Promise<T>, other: Partial<RetryOptions>): Promise<T> {
    const { retries, onRetry, signal, settings } = this.#options;
    try {
      return await withRetries(action, { ...retries, onRetry, signal, ...other });
    } catch (error) {
      if (!(error instanceof TemporaryError)) throw error;
      throw new DetinferError(
        'UNREACHABLE',
        `the model hub at ${settings.endpoint} can't be used: ${error.message}. Check the network, HF_ENDPOINT and ` +
          'HTTPS_PROXY, or pass a local folder.',
        { cause: error },
      );
    }
  }

  #headers(url: URL): Record<string, string> {
    const { settings, userAgent } = this.#options;
    const common = { 'user-agent': userAgent, 'accept-encoding': 'identity' };
    if (settings.token === null || url.origin !== this.#origin) return common;
    return { ...common, authorization: `Bearer ${settings.token}` };
  }
}

/** The error of an answer that may be another one next time. */
export function temporary(
  url: string | URL,
  answer: Pick<Dispatcher.ResponseData, 'statusCode' | 'headers'>,
): TemporaryError {
  return new TemporaryError(`${new URL(url).host} answered with status ${answer.statusCode}`, {
    waitMs: retryAfterMs(header(answer, 'retry-after')),
  });
}

export function header({ headers }: Pick<Dispatcher.ResponseData, 'headers'>, name: string): string | null {
  const value = headers[name];
  return (Array.isArray(value) ? value[0] : value) ?? null;
}

type Redirect = Pick<Dispatcher.ResponseData, 'statusCode' | 'headers'>;

function redirectTarget(from: URL, answer: Redirect, problem: HubProblem): URL | null {
  const target = header(answer, 'location');
  if (answer.statusCode < 300 || answer.statusCode >= 400 || target === null) return null;
  const url = URL.canParse(target, from.href) ? new URL(target, from) : null;
  if (url === null || !/^https?:$/.test(url.protocol)) throw problem.unusable(`redirects to '${target}'`);
  return url;
}

/** The library takes for granted that answers have the right form; a login page of some network, say, has not. */
async function understood<T>(problem: HubProblem, ask: () => Promise<T>): Promise<T> {
  try {
    return await ask();
  } catch (error) {
    // By name: the library's errors may be those of another realm.
    if (!['SyntaxError', 'TypeError'].includes((error as Error).name)) throw error;
    throw problem.unusable('gives answers of no model hub');
  }
}
