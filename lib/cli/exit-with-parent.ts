/**
 * Loaded with `node --import` into a server that a test or a benchmark starts for itself. Such a server must not
 * outlive its parent, however that one ends: when the pipe to the parent closes, the server stops as for Ctrl-C.
 */
const STOP_LIMIT_MS = 10_000;

// Workers that the server forks get the same node flags and inherit this variable, but have another parent.
if (process.env.DETINFER_PARENT_PID === String(process.ppid)) {
  process.stdin.on('close', () => {
    process.kill(process.pid, 'SIGTERM');
    setTimeout(() => process.kill(process.pid, 'SIGKILL'), STOP_LIMIT_MS).unref();
  });
  process.stdin.resume().unref();
}
