/** Entry of the thread that checksum-worker.ts starts. */
import { parentPort, workerData } from 'node:worker_threads';
import { FileChecksum, type ChecksumJob } from './checksum.js';
import type { ToChecksumThread } from './checksum-worker.js';

const checksum = new FileChecksum(workerData as ChecksumJob);

parentPort?.on('message', (message: ToChecksumThread) => {
  if ('upTo' in message) return checksum.readUpTo(message.upTo);
  parentPort?.postMessage(checksum.digest());
  parentPort?.close();
});
