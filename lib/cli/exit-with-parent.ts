import { isMainThread } from 'node:worker_threads';

/**
 * Loaded with `node --import` into a server that a test or a benchmark starts for itself. Such a server must not
 * outlive its parent, however and whenever that one ends: when the pipe to the parent is closed, the server stops as for
 * Ctrl-C. Its threads get the same node flags; they need not do it, too.
 */
const STOP_LIMIT_MS = 10_000;

if (isMainThread) {
  process.stdin.on('close', () => {
    process.kill(process.pid, 'SIGTERM');
    setTimeout(() => process.kill(process.pid, 'SIGKILL'), STOP_LIMIT_MS).unref();
  });
  process.stdin.resume().unref();
}
