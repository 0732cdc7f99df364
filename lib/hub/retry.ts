import { setTimeout as sleep } from 'node:timers/promises';

/** What may succeed when it is tried again. The message completes "hub.example: …". */
export class TemporaryError extends Error {
  /** Least time to wait, where the server named one. */
  readonly waitMs: number;
  /** Whether the attempt got further than the one before; then its failure does not count. */
  readonly progressed: boolean;

  constructor(message: string, options: ErrorOptions & { waitMs?: number; progressed?: boolean } = {}) {
    super(message, options);
    this.waitMs = options.waitMs ?? 0;
    this.progressed = options.progressed ?? false;
  }
}

export interface RetryPolicy {
  /** Failures in a row before giving up. */
  attempts: number;
  /** Wait after the first failure; it doubles with each. */
  firstWaitMs: number;
}

export const RETRIES: RetryPolicy = { attempts: 7, firstWaitMs: 500 };

const LONGEST_BACK_OFF_MS = 20_000;
/** A rate limit of the hub lasts up to five minutes. */
const LONGEST_WAIT_MS = 300_000;

export interface RetryOptions extends RetryPolicy {
  /** Called before each wait. */
  onRetry: (problem: string, waitMs: number) => void;
  signal: AbortSignal;
}

/** Repeats `action` with growing waits while it throws TemporaryError; throws the last one when it gives up. */
export async function withRetries<T>(action: () => Promise<T>, options: RetryOptions): Promise<T> {
  let failures = 0;
  for (;;) {
    options.signal.throwIfAborted();
    try {
      return await action();
    } catch (error) {
      if (!(error instanceof TemporaryError)) throw error;
      failures = error.progressed ? 1 : failures + 1;
      if (failures >= options.attempts) throw error;
      const backOff = Math.min(options.firstWaitMs * 2 ** (failures - 1), LONGEST_BACK_OFF_MS);
      // Clients that failed together must not come back together.
      const waitMs = Math.min(Math.max(error.waitMs, backOff * (0.5 + Math.random() / 2)), LONGEST_WAIT_MS);
      options.onRetry(error.message, waitMs);
      await sleep(waitMs, undefined, { signal: options.signal });
    }
  }
}

/** Milliseconds that a Retry-After header asks for: seconds, or a date. */
export function retryAfterMs(header: string | null | undefined): number {
  if (!header) return 0;
  const wait = /^\d+$/.test(header.trim()) ? Number(header) * 1000 : Date.parse(header) - Date.now();
  return Number.isFinite(wait) ? Math.max(wait, 0) : 0;
}

/** Statuses of a server that is overloaded or broken for the moment. */
export function isTemporaryStatus(status: number): boolean {
  return status === 408 || status === 425 || status === 429 || status >= 500;
}
