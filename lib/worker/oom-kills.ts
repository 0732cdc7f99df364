import { readFileSync } from 'node:fs';

/**
 * Number of processes that the kernel has killed for want of memory since it booted. It sends them SIGKILL as a person
 * would; only this tells the two apart. NaN, equal to nothing, where the kernel does not say.
 */
export function oomKills(): number {
  try {
    const [, count] = /^oom_kill (\d+)$/m.exec(readFileSync('/proc/vmstat', 'utf8')) ?? [];
    return Number(count);
  } catch {
    return NaN;
  }
}
