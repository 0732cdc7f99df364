import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createServer, type AddressInfo } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { request } from 'undici';
import { DetinferError } from '../protocol/errors.js';
import { PACKAGE_ROOT } from './package.js';

const PROGRAM = join(PACKAGE_ROOT, 'bin', 'detinfer.js');
const EXIT_WITH_PARENT = new URL('./exit-with-parent.js', import.meta.url).href;

const START_LIMIT_MS = 20 * 60_000;
const STOP_LIMIT_MS = 15_000;
const POLL_MS = 100;
/** Characters of the server's output that a failure shows. */
const KEPT_OUTPUT = 4000;

/** A server that lives for one test or benchmark. */
export interface OwnServer {
  url: string;
  pid: number;
  stop(): Promise<void>;
}

/**
 * Starts `detinfer launch` on a free port and waits until it is healthy. It ends with `stop`, and at the latest when
 * this process does. Aborting the signal stops it while it starts.
 * @throws DetinferError INVALID_MODEL with the server's last words when it exits or does not get ready.
 */
export async function startOwnServer(launchArgs: string[], signal: AbortSignal): Promise<OwnServer> {
  const port = await freePort();
  const args = [
    '--import',
    EXIT_WITH_PARENT,
    PROGRAM,
    'launch',
    ...launchArgs,
    '--host',
    '127.0.0.1',
    '--port',
    String(port),
  ];
  // A process group of its own: Ctrl-C in a terminal reaches this process alone, which then stops the server in order.
  const child = spawn(process.execPath, args, { detached: true, stdio: ['pipe', 'pipe', 'pipe'] });
  let output = '';
  const keep = (chunk: Buffer): void => {
    output = (output + chunk.toString()).slice(-KEPT_OUTPUT);
  };
  child.stdout.on('data', keep);
  child.stderr.on('data', keep);
  child.stdin.on('error', () => {});

  const url = `http://127.0.0.1:${port}`;
  const stop = (): Promise<void> => stopChild(child);
  try {
    await untilHealthy(child, url, signal);
  } catch (error) {
    await stop();
    if (!(error instanceof DetinferError)) throw error;
    throw new DetinferError(error.code, `${error.message}${output === '' ? '' : `. It said:\n${output.trim()}`}`);
  }
  return { url, pid: child.pid as number, stop };
}

async function untilHealthy(child: ChildProcess, url: string, signal: AbortSignal): Promise<void> {
  const deadline = Date.now() + START_LIMIT_MS;
  while (Date.now() < deadline) {
    signal.throwIfAborted();
    if (hasExited(child)) throw new DetinferError('INVALID_MODEL', 'the server did not start');
    if (await isHealthy(url)) return;
    await sleep(POLL_MS, undefined, { signal });
  }
  throw new DetinferError('INVALID_MODEL', `the server was not ready within ${START_LIMIT_MS / 60_000} minutes`);
}

async function isHealthy(url: string): Promise<boolean> {
  try {
    const { statusCode, body } = await request(`${url}/health`);
    await body.dump();
    return statusCode === 200;
  } catch {
    return false; // Nothing listens yet.
  }
}

async function stopChild(child: ChildProcess): Promise<void> {
  if (hasExited(child)) return;
  const exited = once(child, 'exit');
  child.kill('SIGTERM');
  const forced = setTimeout(() => child.kill('SIGKILL'), STOP_LIMIT_MS);
  await exited;
  clearTimeout(forced);
}

function hasExited(child: ChildProcess): boolean {
  return child.exitCode !== null || child.signalCode !== null;
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}
