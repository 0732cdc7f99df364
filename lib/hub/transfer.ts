import type { Readable } from 'node:stream';
import { DetinferError } from '../protocol/errors.js';
import type { HubClient, Location, RemoteFile } from './hub-client.js';
import { header, temporary } from './hub-client.js';
import { forAll, type Limit } from './limit.js';
import { isTemporaryStatus, TemporaryError, withRetries, type RetryPolicy } from './retry.js';
import type { Segment, SegmentedFile } from './segments.js';

export interface TransferOptions {
  client: HubClient;
  /** Asks again where the file lies, once its link has expired. */
  locate: () => Promise<Location>;
  /** Of all transfers together. */
  connections: Limit;
  retries: RetryPolicy;
  onRetry: (problem: string, waitMs: number) => void;
  /** Bytes that arrived; negative when some are dropped. */
  onBytes: (count: number) => void;
  signal: AbortSignal;
}

/**
 * Fetches what a file lacks, several segments at once, and tries again where the network or the server fails
 * for the moment. @throws DetinferError DOWNLOAD_FAILED, ACCESS_DENIED; the file system's errors
 */
export async function transfer(
  file: RemoteFile,
  location: Location,
  target: SegmentedFile,
  options: TransferOptions,
): Promise<void> {
  const source = new Source(location, options.locate);
  const missing = target.segments.filter(({ written, length }) => written < length);
  await forAll(missing, options.connections, options.signal, (segment, signal) => {
    return fetchSegment({ file, source, target, segment, options, signal });
  });
}

interface SegmentFetch {
  file: RemoteFile;
  source: Source;
  target: SegmentedFile;
  segment: Segment;
  options: TransferOptions;
  signal: AbortSignal;
}

async function fetchSegment(fetch: SegmentFetch): Promise<void> {
  const { file, segment, options, signal } = fetch;
  const attempt = async (): Promise<void> => {
    const before = segment.written;
    try {
      await fetchRange(fetch);
    } catch (error) {
      if (!(error instanceof TemporaryError)) throw error;
      throw new TemporaryError(error.message, {
        cause: error,
        waitMs: error.waitMs,
        progressed: segment.written > before,
      });
    }
  };
  try {
    await withRetries(attempt, { ...options.retries, onRetry: options.onRetry, signal });
  } catch (error) {
    if (!(error instanceof TemporaryError)) throw error;
    const words = `${file.path} could not be downloaded: ${error.message}. What arrived is kept; start again to go on.`;
    throw new DetinferError('DOWNLOAD_FAILED', words, { cause: error });
  }
}

/** One request for the rest of a segment. */
async function fetchRange({ file, source, target, segment, options, signal }: SegmentFetch): Promise<void> {
  const { url, headers } = await source.current();
  const from = segment.start + segment.written;
  const to = segment.start + segment.length - 1;
  const answer = await options.client.request(url, { ...headers, range: `bytes=${from}-${to}` }, signal);
  // A body that nobody reads any more may still fail.
  answer.body.on('error', () => {});
  try {
    checkAnswer(answer, url);
    await eachChunk(answer.body, (chunk) => {
      if (chunk.length > segment.length - segment.written) throw failure('sent more bytes than it was asked for');
      target.append(segment, chunk);
      options.onBytes(chunk.length);
    });
  } catch (error) {
    signal.throwIfAborted();
    if (isNetworkError(error))
      throw new TemporaryError(`${new URL(url).host}: ${(error as Error).message}`, { cause: error });
    throw error;
  } finally {
    answer.body.destroy();
  }
  if (segment.written < segment.length) throw new TemporaryError(`${new URL(url).host} ended an answer early`);

  function checkAnswer(
    { statusCode, headers: received }: Pick<typeof answer, 'statusCode' | 'headers'>,
    link: string,
  ): void {
    if (statusCode === 206) {
      const range = header({ headers: received }, 'content-range');
      if (range === `bytes ${from}-${to}/${file.size}`) return;
      throw failure(`was asked for bytes ${from}-${to} of ${file.size} and sent ${range ?? 'others'}`);
    }
    if (statusCode === 200) {
      // The whole file, from a server without ranges; that will do where one segment is the whole file.
      if (segment.length !== file.size) throw failure('does not serve ranges');
      options.onBytes(-segment.written);
      target.restart(segment);
      return;
    }
    if (isTemporaryStatus(statusCode)) throw temporary(link, { statusCode, headers: received });
    if (statusCode === 401 || statusCode === 403) {
      // A signed link lives for some minutes or hours; the hub gives a new one.
      source.expire(link);
      throw new TemporaryError(`${new URL(link).host} refused a link (status ${statusCode})`);
    }
    throw failure(`answered with status ${statusCode}`);
  }

  function failure(what: string): DetinferError {
    return new DetinferError('DOWNLOAD_FAILED', `${file.path}: ${new URL(url).host} ${what}.`);
  }
}

/** Calls `take` with every chunk of a body. An event costs a third of what a step of an asynchronous loop does. */
function eachChunk(body: Readable, take: (chunk: Buffer) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    body.on('error', reject).on('end', resolve);
    body.on('data', (chunk: Buffer) => {
      try {
        take(chunk);
      } catch (error) {
        body.destroy(error as Error);
      }
    });
  });
}

/** Where a file lies, for all of its segments. */
class Source {
  #location: Promise<Location>;
  #url: string;

  constructor(
    location: Location,
    private readonly locate: () => Promise<Location>,
  ) {
    this.#location = Promise.resolve(location);
    this.#url = location.url;
  }

  current(): Promise<Location> {
    return this.#location;
  }

  /** Asks for a new link unless another segment has done so. */
  expire(url: string): void {
    if (url !== this.#url) return;
    this.#url = '';
    this.#location = this.locate().then((location) => {
      this.#url = location.url;
      return location;
    });
    this.#location.catch(() => {});
  }
}

/** Errors of connections have codes, those of the file system have a number, too. */
function isNetworkError(error: unknown): boolean {
  if (!(error instanceof Error) || error instanceof DetinferError || error instanceof TemporaryError) return false;
  const { code, syscall } = error as NodeJS.ErrnoException;
  return code !== undefined && syscall !== 'write' && syscall !== 'open';
}
