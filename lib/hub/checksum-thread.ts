/** Entry of the thread that checksum.ts starts. */
import { createHash } from 'node:crypto';
import { closeSync, openSync, readSync } from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';
import type { ChecksumJob, ToChecksumThread } from './checksum.js';

const { path, size, algorithm } = workerData as ChecksumJob;
const file = openSync(path, 'r');
const buffer = Buffer.allocUnsafe(2 ** 20);
const hash = createHash(algorithm === 'sha256' ? 'sha256' : 'sha1');
// Git hashes a file behind a line of its own.
if (algorithm === 'git') hash.update(`blob ${size}\0`);
let position = 0;

function readUpTo(end: number): void {
  while (position < end) {
    const count = readSync(file, buffer, 0, Math.min(buffer.length, end - position), position);
    if (count === 0) throw new Error(`${path} ends at ${position} of ${end} bytes`);
    hash.update(buffer.subarray(0, count));
    position += count;
  }
}

parentPort?.on('message', (message: ToChecksumThread) => {
  if ('upTo' in message) return readUpTo(message.upTo);
  readUpTo(size);
  closeSync(file);
  parentPort?.postMessage(hash.digest('hex'));
  parentPort?.close();
});
