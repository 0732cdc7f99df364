import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

import { fromErrorData, type DetinferError, type ErrorData } from '../protocol/errors.js';
import type { Device } from '../protocol/server-args.js';
import { addonPath } from '../system/addon.js';
import { unusableGpu } from './gpu.js';

const CHILD = fileURLToPath(new URL('./probe-child.js', import.meta.url));
const LIMIT_MS = 60_000;

/** There where a driver is loaded; without one there is no need to ask. */
const DRIVER = '/dev/nvidiactl';

/** The device of a launch that names none, and why it is not the GPU although there might be one. */
export interface DeviceChoice {
  device: Device;
  note: string | null;
}

/** A GPU if there is one that the CUDA engine can run on, else the CPU. */
export function chooseDevice(): DeviceChoice {
  if (!existsSync(addonPath('cuda')) || !existsSync(DRIVER)) return { device: 'cpu', note: null };
  const problem = gpuProblem(0);
  if (problem === null) return { device: 'cuda', note: null };
  return { device: 'cpu', note: `running on the CPU, since the GPU does not answer: ${problem.message}` };
}

const problems = new Map<string, DetinferError | null>();

/**
 * Why `count` GPUs from the index `first` on can't be used; null: they can. Asked in a short-lived process, so that a
 * broken driver can't harm this one, and once, since a driver may take seconds to start.
 */
export function gpuProblem(first: number, count = 1): DetinferError | null {
  const key = `${first}+${count}`;
  const known = problems.get(key);
  if (known !== undefined) return known;
  const problem = askChild(first, count);
  problems.set(key, problem);
  return problem;
}

function askChild(first: number, count: number): DetinferError | null {
  const child = spawnSync(process.execPath, [CHILD, String(first), String(count)], { encoding: 'utf8', timeout: LIMIT_MS });
  const end = child.error?.message ?? (child.signal === null ? `exit code ${child.status}` : `signal ${child.signal}`);
  return readAnswer(child.stdout, end);
}

/** @param end how the child ended, in case that it did not answer. */
export function readAnswer(output: string, end: string): DetinferError | null {
  try {
    const error = JSON.parse(output) as ErrorData | null;
    return error === null ? null : fromErrorData(error);
  } catch {
    return unusableGpu(`the process that asked the CUDA driver ended without an answer (${end})`);
  }
}
