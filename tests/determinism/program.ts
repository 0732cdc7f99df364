import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { PACKAGE_ROOT } from '../../lib/cli/package.js';

export interface Finished {
  code: number | null;
  stdout: string;
  stderr: string;
}

type Started = ChildProcess & { stdout: NodeJS.ReadableStream; stderr: NodeJS.ReadableStream };

/** Starts `detinfer test`. */
export function start(...args: string[]): Started {
  const child = spawn(process.execPath, [join(PACKAGE_ROOT, 'bin', 'detinfer.js'), 'test', ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  return child as Started;
}

/** Runs `detinfer test` to its end. */
export async function run(...args: string[]): Promise<Finished> {
  const child = start(...args);
  const exit = once(child, 'exit') as Promise<[number | null]>;
  const [stdout, stderr, [code]] = await Promise.all([text(child.stdout), text(child.stderr), exit]);
  return { code, stdout, stderr };
}
