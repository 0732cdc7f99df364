import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { text } from 'node:stream/consumers';
import { DetinferError } from '../protocol/errors.js';

/**
 * Runs the native benchmark with the terminal as its own.
 * @param program path of detinfer_bench
 * @returns its exit code
 * @throws DetinferError UNSUPPORTED if it is not built.
 */
export async function runNativeBench(program: string, args: string[]): Promise<number> {
  requireBuilt(program);
  const child = spawn(program, args, { stdio: 'inherit' });
  const [code] = (await once(child, 'exit')) as [number | null];
  return code ?? 1;
}

/**
 * Bytes per second that `threads` threads read from memory on this machine, now.
 * @throws DetinferError UNSUPPORTED if the native benchmark is not built, ENGINE_FAILED if it fails.
 */
export async function measureReadBandwidth(program: string, threads: number): Promise<number> {
  requireBuilt(program);
  const child = spawn(program, ['bandwidth', '--threads', String(threads), '--json'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const exit = once(child, 'exit') as Promise<[number | null]>;
  const [output, [code]] = await Promise.all([text(child.stdout), exit]);
  if (code !== 0) throw new DetinferError('ENGINE_FAILED', `${program} bandwidth ended with exit code ${code}`);
  return (JSON.parse(output) as { bytes_per_second: number }).bytes_per_second;
}

function requireBuilt(program: string): void {
  if (existsSync(program)) return;
  throw new DetinferError('UNSUPPORTED', `the native benchmark is not built (${program}): run npm run build`);
}
