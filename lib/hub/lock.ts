import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, fstatSync, mkdirSync, openSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { DetinferError } from '../protocol/errors.js';

const POLL_MS = 200;
/** Exit code of flock(1) when another process holds the lock. */
const IS_HELD = 1;

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
      if ((await tryLock(file, path)) && isSameFile(file, path)) return await action();
    } finally {
      closeSync(file);
    }
    if (!isWaiting) onWait();
    isWaiting = true;
    await sleep(POLL_MS, undefined, { signal });
  }
}

/**
 * Node has no flock(2). A child inherits the open file, and its lock belongs to that file, not to the child: it stays
 * when the child has ended.
 */
async function tryLock(file: number, path: string): Promise<boolean> {
  const child = spawn('flock', ['--exclusive', '--nonblock', '3'], { stdio: ['ignore', 'ignore', 'pipe', file] });
  let words = '';
  child.stderr?.on('data', (data: Buffer) => (words += data.toString()));
  try {
    const [code] = (await once(child, 'close')) as [number | null];
    if (code === 0 || code === IS_HELD) return code === 0;
  } catch (error) {
    throw new DetinferError('DOWNLOAD_FAILED', `the program flock is missing; install util-linux (${String(error)})`);
  }
  throw new DetinferError(
    'DOWNLOAD_FAILED',
    `${path} can't be locked: ${words.trim()}. Set HF_HUB_CACHE to a folder on a file system with locks.`,
  );
}

function isSameFile(file: number, path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.ino === fstatSync(file).ino;
}
