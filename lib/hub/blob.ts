import { randomUUID } from 'node:crypto';
import { mkdirSync } from 'node:fs';
import { rename, rm, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { DetinferError } from '../protocol/errors.js';
import { ChecksumWorker } from './checksum-worker.js';
import { newHash } from './checksum.js';
import type { Location, RemoteFile } from './hub-client.js';
import { MemoryFile } from './memory-file.js';
import { PartialFile } from './partial-file.js';
import { transfer, type TransferOptions } from './transfer.js';

export interface BlobOptions extends TransferOptions {
  /** Bytes that an earlier run had left. */
  onResume: (bytes: number) => void;
}

/**
 * Whether a file is so small that a lock, a file to be resumed and a thread for its checksum cost more than to fetch it
 * again. Two processes may do so at once; each renames a file of its own.
 */
export function isSmall({ size }: RemoteFile): boolean {
  return size <= 2 ** 18;
}

/**
 * Downloads a small file into the blob `path`, and checks its checksum before the blob gets its name.
 * @throws DetinferError DOWNLOAD_FAILED, also for a wrong checksum; ACCESS_DENIED; the file system's errors
 */
export async function downloadSmallBlob(
  path: string,
  file: RemoteFile,
  location: Location,
  options: TransferOptions,
): Promise<void> {
  const memory = new MemoryFile(file.size);
  await transfer(file, location, memory, options);
  const digest = newHash(file.checksum.algorithm, file.size).update(memory.bytes).digest('hex');
  if (digest !== file.checksum.hex) throw checksumProblem(file, digest);
  mkdirSync(dirname(path), { recursive: true });
  const written = `${path}.${randomUUID()}.new`;
  try {
    await writeFile(written, memory.bytes, { flush: true });
    await rename(written, path);
  } catch (error) {
    await rm(written, { force: true });
    throw error;
  }
}

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
  const checksum = new ChecksumWorker({ path: partial.path, size: file.size, algorithm: file.checksum.algorithm });
  try {
    options.onResume(partial.written);
    const onBytes = (count: number): void => {
      options.onBytes(count);
      // A file of one segment may begin anew (see transfer), with other bytes than those that were read.
      if (partial.segments.length > 1) checksum.advance(partial.front);
    };
    await transfer(file, location, partial, { ...options, onBytes });
    // What is left for the disk and for the checksum takes each as long as the other.
    const [digest] = await Promise.all([checksum.digest(), partial.flush()]);
    if (digest !== file.checksum.hex) {
      await partial.discard();
      throw checksumProblem(file, digest);
    }
    await partial.commit();
  } finally {
    await checksum.stop();
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
