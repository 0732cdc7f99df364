import { spawn, type ChildProcess } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { PACKAGE_ROOT } from '../../lib/cli/package.js';

export const READY = 'The server is fired up and ready to roll!';

/** A running program whose output is kept. */
export interface Program {
  child: ChildProcess;
  /** Standard output and error, interleaved. */
  output(): string;
  /** Resolves when the output matches; rejects when the program ends or `seconds` pass before. */
  until(pattern: RegExp | string, seconds?: number): Promise<void>;
  /** Resolves to the exit code, or the signal's name. */
  ended: Promise<number | string>;
}

/** Starts a program in a process group of its own, as a terminal does. */
export function start(command: string, args: string[], cwd = PACKAGE_ROOT, environment = process.env): Program {
  const env = { ...environment, NO_COLOR: '1', FORCE_COLOR: '0' };
  const child = spawn(command, args, { cwd, env, detached: true, stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  child.stdout?.on('data', (data: Buffer) => (output += data.toString()));
  child.stderr?.on('data', (data: Buffer) => (output += data.toString()));
  let isEnded = false;
  const ended = new Promise<number | string>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code, signal) => {
      isEnded = true;
      resolve(code ?? signal ?? 'unknown');
    });
  });
  const matches = (pattern: RegExp | string): boolean =>
    typeof pattern === 'string' ? output.includes(pattern) : pattern.test(output);
  const until = async (pattern: RegExp | string, seconds = 60): Promise<void> => {
    const deadline = Date.now() + seconds * 1000;
    while (!matches(pattern)) {
      if (isEnded) throw new Error(`the program ended before it printed ${pattern}:\n${output}`);
      if (Date.now() > deadline) throw new Error(`no ${pattern} within ${seconds} s:\n${output}`);
      await sleep(20);
    }
  };
  return { child, output: () => output, until, ended };
}

/** What these tests ask is the same with a GPU, which other tests would find occupied. */
export const ON_FREE_PORT = ['--port', '0', '--device', 'cpu'];

/** Starts `detinfer launch` of the working tree on a free port. */
export function launch(...flags: string[]): Program {
  return start(process.execPath, ['bin/detinfer.js', 'launch', ...ON_FREE_PORT, '--threads', '1', ...flags]);
}

/** Resolves when a worker of a launched server has begun with a request. */
export async function untilItRuns(program: Program): Promise<void> {
  for (;;) {
    const response = await fetch(`${addressOf(program)}/server_info`);
    const { internal_states: states } = (await response.json()) as { internal_states: { running_requests: number }[] };
    if (states.some(({ running_requests: running }) => running > 0)) return;
    await sleep(5);
  }
}

/** What a terminal does at Ctrl-C: the signal reaches every process that its command has started. */
export function ctrlC(program: Program): void {
  process.kill(-(program.child.pid ?? 0), 'SIGINT');
}

/** Ends whatever is left of a program. */
export function killGroup(program: Program): void {
  try {
    process.kill(-(program.child.pid ?? 0), 'SIGKILL');
  } catch {
    // All of it has ended, as it should have.
  }
}

/** The address that a launched server has printed. */
export function addressOf(program: Program): string {
  const [, address] = /Listening on (http:\S+)/.exec(program.output()) ?? [];
  if (address === undefined) throw new Error(`no address in:\n${program.output()}`);
  return address;
}

/** The ids of the processes that descend from `pid`. */
export function descendants(pid: number): number[] {
  const parents = new Map<number, number>();
  for (const name of readdirSync('/proc').filter((entry) => /^\d+$/.test(entry))) {
    const parent = parentOf(Number(name));
    if (parent !== undefined) parents.set(Number(name), parent);
  }
  const children = [...parents].filter(([, parent]) => parent === pid).map(([child]) => child);
  return [...children, ...children.flatMap(descendants)];
}

/** Resolves to the processes that still live when all have ended, or when `seconds` have passed. */
export async function survivors(pids: number[], seconds: number): Promise<number[]> {
  const deadline = Date.now() + seconds * 1000;
  let alive = pids.filter(isAlive);
  while (alive.length > 0 && Date.now() < deadline) {
    await sleep(50);
    alive = alive.filter(isAlive);
  }
  return alive;
}

/** A zombie has ended, though nobody has asked for its exit code yet. */
export function isAlive(pid: number): boolean {
  const stat = statOf(pid);
  return stat !== undefined && stat[0] !== 'Z';
}

function parentOf(pid: number): number | undefined {
  const stat = statOf(pid);
  return stat === undefined ? undefined : Number(stat[1]);
}

/** State, parent and so on: what follows the program's name in /proc/PID/stat. */
function statOf(pid: number): string[] | undefined {
  try {
    return readFileSync(`/proc/${pid}/stat`, 'utf8').replace(/^.*\) /s, '').split(' ');
  } catch {
    return undefined;
  }
}
