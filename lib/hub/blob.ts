import { mkdirSync } from 'node:fs';
import { dirname } from 'node:path';
import { DetinferError } from '../protocol/errors.js';
import { ChecksumWorker } from './checksum-worker.js';
import { FileChecksum } from './checksum.js';
import type { Location, RemoteFile } from './hub-client.js';
import { PartialFile } from './partial-file.js';
import { transfer, type TransferOptions } from './transfer.js';

export interface BlobOptions extends TransferOptions {
  /** Bytes that an earlier run had left. */
  onResume: (bytes: number) => void;
}

/** A thread takes longer to start than such a file takes to be hashed. */
const SMALL_FILE_BYTES = 8 * 2 ** 20;

/**
 * Downloads a file into the blob `path`, going on from where an earlier process ended, and checks its checksum before
 * the blob gets its name. The caller holds the blob's lock.
 * @throws DetinferError DOWNLOAD_FAILED, also for a wrong checksum; ACCESS_DENIED; the file system's errors
 */
export async function downloadBlob(
  path: string,
  file: RemoteFile,
  location: Location,
  options: BlobOptions,
): Promise<void> {
  mkdirSync(dirname(path), { recursive: true });
  const partial = new PartialFile(path, file.size);
  const job = { path: partial.path, size: file.size, algorithm: file.checksum.algorithm };
  const worker = file.size > SMALL_FILE_BYTES ? new ChecksumWorker(job) : null;
  try {
    options.onResume(partial.written);
    worker?.advance(partial.front);
    const onBytes = (count: number): void => {
      options.onBytes(count);
      worker?.advance(partial.front);
    };
    await transfer(file, location, partial, { ...options, onBytes });
    const digest = worker === null ? new FileChecksum(job).digest() : await worker.digest();
    if (digest !== file.checksum.hex) {
      await partial.discard();
      throw checksumProblem(file, digest);
    }
    await partial.commit();
  } finally {
    await worker?.stop();
    await partial.close();
  }
}

function checksumProblem({ path, checksum }: RemoteFile, digest: string): DetinferError {
  const name = checksum.algorithm === 'sha256' ? 'SHA-256' : 'git id';
  return new DetinferError(
    'DOWNLOAD_FAILED',
    `${path} arrived with the ${name} ${digest} instead of ${checksum.hex} and was deleted. Try again; if it does ` +
      'not help, something between this machine and the hub changes files.',
  );
}
