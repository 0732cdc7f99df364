import { readdirSync, readFileSync } from 'node:fs';

/** Linux counts CPU time in these units for user programs, whatever the kernel's own clock. */
const TICKS_PER_SECOND = 100;

/** CPU seconds that processes have used since they began. */
export interface CpuUsage {
  client: number;
  /** The server process itself. */
  server: number;
  /** Its children: the workers. */
  worker: number;
  /** The workers' share of it in the engine. */
  engine: number;
}

/**
 * CPU time of this process and of a server on this machine. @param engine as the server reports it.
 */
export function readCpuUsage(serverPid: number, engine: number): CpuUsage {
  const { user, system } = process.cpuUsage();
  const processes = readProcesses();
  const server = processes.find((one) => one.pid === serverPid);
  const workers = processes.filter((one) => one.parent === serverPid);
  return {
    client: (user + system) / 1e6,
    server: server?.seconds ?? 0,
    worker: workers.reduce((total, one) => total + one.seconds, 0),
    engine,
  };
}

/** What was used between two readings. */
export function usageBetween(before: CpuUsage, after: CpuUsage): CpuUsage {
  return {
    client: after.client - before.client,
    server: after.server - before.server,
    worker: after.worker - before.worker,
    engine: after.engine - before.engine,
  };
}

function readProcesses(): { pid: number; parent: number; seconds: number }[] {
  const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name));
  return pids.flatMap((pid) => {
    const fields = statFields(pid);
    if (fields === null) return [];
    // Counted from the state, which is field 3 of proc(5): 4 is the parent, 14 and 15 are user and system time.
    const [parent, user, system] = [fields[1], fields[11], fields[12]].map(Number) as [number, number, number];
    return [{ pid: Number(pid), parent, seconds: (user + system) / TICKS_PER_SECOND }];
  });
}

/** The fields after the program's name, which may itself hold spaces and parentheses; null if the process is gone. */
function statFields(pid: string): string[] | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  } catch {
    return null;
  }
}
