import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import type { ChecksumJob } from './checksum.js';

/** What the thread is told: how far it may read, or that it is to answer. */
export type ToChecksumThread = { upTo: number } | { end: true };

/** Bytes between two messages to the thread. */
const STEP_BYTES = 4 * 2 ** 20;

/**
 * Computes the checksum of a large file while it is downloaded, in a thread of its own: it is known soon after the last
 * byte is there, and holds nothing else up. The thread starts with the first bytes, lest they wait for it.
 */
export class ChecksumWorker {
  readonly #job: ChecksumJob;
  #thread: Worker | null = null;
  #result: Promise<string> | null = null;
  #announced = 0;

  constructor(job: ChecksumJob) {
    this.#job = job;
  }

  /** Says that the file is there up to a position, without holes. */
  advance(upTo: number): void {
    if (upTo - this.#announced < STEP_BYTES) return;
    this.#announced = upTo;
    this.#tell({ upTo });
  }

  /** The checksum of the whole file, in hexadecimal. */
  digest(): Promise<string> {
    return this.#tell({ end: true });
  }

  async stop(): Promise<void> {
    await this.#thread?.terminate();
  }

  #tell(message: ToChecksumThread): Promise<string> {
    this.#thread ??= new Worker(new URL('./checksum-thread.js', import.meta.url), { workerData: this.#job });
    this.#result ??= once(this.#thread, 'message').then(([hex]) => hex as string);
    // A failure is for `digest` to report, which may never be called.
    this.#result.catch(() => {});
    this.#thread.postMessage(message);
    return this.#result;
  }
}
