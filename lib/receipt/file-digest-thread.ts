/** Entry of the thread that model-digests.ts starts: the digest of the content of files, one behind the other. */
import { createHash } from 'node:crypto';
import { closeSync, openSync, readSync } from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';

const hash = createHash('sha256');
const buffer = Buffer.allocUnsafe(2 ** 20);
for (const path of workerData as string[]) {
  const file = openSync(path, 'r');
  for (let count = readSync(file, buffer); count > 0; count = readSync(file, buffer)) {
    hash.update(buffer.subarray(0, count));
  }
  closeSync(file);
}
parentPort!.postMessage(`sha256:${hash.digest('hex')}`);
