import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
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

function requireBuilt(program: string): void {
  if (existsSync(program)) return;
  throw new DetinferError('UNSUPPORTED', `the native benchmark is not built (${program}): run npm run build`);
}
