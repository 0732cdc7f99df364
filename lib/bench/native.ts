import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { DetinferError } from '../protocol/errors.js';

/** A program that measures kernels, and the command that builds it. */
export interface NativeBench {
  program: string;
  build: string;
}

/**
 * Runs a native benchmark with the terminal as its own.
 * @returns its exit code
 * @throws DetinferError UNSUPPORTED if it is not built.
 */
export async function runNativeBench({ program, build }: NativeBench, args: string[]): Promise<number> {
  if (!existsSync(program)) {
    throw new DetinferError('UNSUPPORTED', `the native benchmark is not built (${program}): run ${build}`);
  }
  const child = spawn(program, args, { stdio: 'inherit' });
  const [code] = (await once(child, 'exit')) as [number | null];
  return code ?? 1;
}
