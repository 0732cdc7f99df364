import { closeSync, fstatSync, mkdirSync, openSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { DetinferError } from '../protocol/errors.js';
import { system } from '../system/system.js';

const POLL_MS = 200;

/**
 * Runs `action` while this process alone holds the lock on a file, as other processes with flock(2) do, Python's
 * huggingface_hub among them. The kernel releases the lock when the process ends, kill -9 included, so that there are
 * no stale locks.
 * @param onWait called once when another process holds the lock
 * @throws DetinferError DOWNLOAD_FAILED where files can't be locked
 */
export async function withLock<T>(
  path: string,
  signal: AbortSignal,
  onWait: () => void,
  action: () => Promise<T>,
): Promise<T> {
  mkdirSync(dirname(path), { recursive: true });
  let isWaiting = false;
  for (;;) {
    const file = openSync(path, 'a');
    try {
      // Python's filelock may remove the file on release: a lock on a removed file is a lock on nothing.
      if (tryLock(file, path) && isSameFile(file, path)) return await action();
    } finally {
      closeSync(file);
    }
    if (!isWaiting) onWait();
    isWaiting = true;
    await sleep(POLL_MS, undefined, { signal });
  }
}

function tryLock(file: number, path: string): boolean {
  const { tryLock } = system();
  try {
    return tryLock(file);
  } catch (error) {
    throw new DetinferError(
      'DOWNLOAD_FAILED',
      `${path} can't be locked: ${(error as Error).message}. Set HF_HUB_CACHE to a folder on a file system with locks.`,
      { cause: error },
    );
  }
}

function isSameFile(file: number, path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.ino === fstatSync(file).ino;
}
