import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import type { Checksum } from './hub-client.js';

/** What the thread is told: how far it may read, or that it is to answer. */
export type ToChecksumThread = { upTo: number } | { end: true };

export interface ChecksumJob {
  path: string;
  size: number;
  algorithm: Checksum['algorithm'];
}

/** Bytes between two messages to the thread. */
const STEP_BYTES = 4 * 2 ** 20;

/**
 * Computes the checksum of a file while it grows, in a thread of its own: it is known soon after the last byte is there,
 * and a large file holds nothing else up.
 */
export class ChecksumThread {
  readonly #worker: Worker;
  readonly #result: Promise<string>;
  #announced = 0;

  constructor(job: ChecksumJob) {
    this.#worker = new Worker(new URL('./checksum-thread.js', import.meta.url), { workerData: job });
    this.#result = once(this.#worker, 'message').then(([hex]) => hex as string);
    // The failure is for `digest` to report, which may never be called.
    this.#result.catch(() => {});
  }

  /** Says that the file is there up to a position, without holes. */
  advance(upTo: number): void {
    if (upTo - this.#announced < STEP_BYTES) return;
    this.#announced = upTo;
    this.#tell({ upTo });
  }

  /** The checksum of the whole file, in hexadecimal. */
  async digest(): Promise<string> {
    this.#tell({ end: true });
    return this.#result;
  }

  async stop(): Promise<void> {
    await this.#worker.terminate();
  }

  #tell(message: ToChecksumThread): void {
    this.#worker.postMessage(message);
  }
}
