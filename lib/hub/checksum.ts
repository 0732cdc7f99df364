import { createHash, type Hash } from 'node:crypto';
import { closeSync, openSync, readSync } from 'node:fs';
import type { Checksum } from './hub-client.js';

export interface ChecksumJob {
  path: string;
  size: number;
  algorithm: Checksum['algorithm'];
}

/** Begins the checksum of a file of `size` bytes. */
export function newHash(algorithm: Checksum['algorithm'], size: number): Hash {
  // Git hashes a file behind a line of its own.
  return algorithm === 'sha256' ? createHash('sha256') : createHash('sha1').update(`blob ${size}\0`);
}

/** The checksum of a file that may still be growing. */
export class FileChecksum {
  readonly #job: ChecksumJob;
  readonly #hash: Hash;
  readonly #file: number;
  readonly #buffer = Buffer.allocUnsafe(2 ** 18);
  #position = 0;

  constructor(job: ChecksumJob) {
    this.#job = job;
    this.#hash = newHash(job.algorithm, job.size);
    this.#file = openSync(job.path, 'r');
  }

  /** Takes in the file up to a position; it must have no holes before it. */
  readUpTo(end: number): void {
    while (this.#position < end) {
      const length = Math.min(this.#buffer.length, end - this.#position);
      const count = readSync(this.#file, this.#buffer, 0, length, this.#position);
      if (count === 0) throw new Error(`${this.#job.path} ends at ${this.#position} of ${end} bytes`);
      this.#hash.update(this.#buffer.subarray(0, count));
      this.#position += count;
    }
  }

  /** Takes in the rest and returns the checksum in hexadecimal; nothing can be done with it then. */
  digest(): string {
    this.readUpTo(this.#job.size);
    closeSync(this.#file);
    return this.#hash.digest('hex');
  }
}
