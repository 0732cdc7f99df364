import { fork, type ChildProcess } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { DetinferError, fromErrorData } from '../protocol/errors.js';
import type {
  EngineInfo,
  FromWorker,
  RequestEvent,
  SchedulerStatus,
  ToWorker,
  WorkerRequest,
} from '../protocol/messages.js';
import type { LogLevel, ServerArgs } from '../protocol/server-args.js';
import { oomKills } from './oom-kills.js';
import { Watchdog } from './watchdog.js';

const ENTRY = fileURLToPath(new URL('./main.js', import.meta.url));
const SHUTDOWN_LIMIT_MS = 5000;
/** Signals that somebody sends; a process that fails by itself ends with another one, or with an exit code. */
const SENT_SIGNALS: (NodeJS.Signals | null)[] = ['SIGKILL', 'SIGHUP'];

export interface WorkerHandlers {
  /** Bytes of weights loaded so far, and of all. */
  onProgress(done: number, total: number): void;
  log(level: LogLevel, message: string): void;
  /** The events of one step, or of requests that were aborted or refused. */
  onStep(events: RequestEvent[]): void;
  /**
   * The worker is gone after it was ready, though nobody shut it down. Its live requests get no more events.
   * @param wasKilled whether somebody killed it, so that no request can be to blame.
   */
  onExit(error: DetinferError, wasKilled: boolean): void;
}

/** The worker process, seen from the server process. */
export interface WorkerHandle {
  readonly info: EngineInfo;
  readonly pid: number;
  /** Hands requests to the scheduler. What it refuses comes back as an event that aborts. */
  submit(requests: WorkerRequest[]): void;
  /** Ends requests; each gets a last event, unless it has ended before. */
  abort(ids: string[], message: string): void;
  /** @throws DetinferError WORKER_DIED, as does status(). */
  flushCache(): Promise<{ success: boolean; message: string }>;
  status(): Promise<SchedulerStatus>;
  /** Whether the scheduler plans steps; what was asked for before status() is heeded when that resolves. */
  setPaused(isPaused: boolean): void;
  /** Aborts what is live and ends the process, by force where it takes too long. Resolves when it has ended. */
  shutdown(): Promise<void>;
}

/**
 * Starts a worker process and loads the model there. Resolves when it is ready.
 * @param signal kills the process while it starts.
 * @throws DetinferError why the model was not loaded; WORKER_DIED when the process ended without telling.
 */
export async function startWorker(
  args: ServerArgs,
  handlers: WorkerHandlers,
  signal?: AbortSignal,
): Promise<WorkerHandle> {
  const worker = new WorkerProcess(args, handlers);
  const kill = (): void => worker.kill();
  signal?.addEventListener('abort', kill);
  try {
    await worker.ready;
  } finally {
    signal?.removeEventListener('abort', kill);
  }
  return worker;
}

interface Call {
  resolve(message: FromWorker): void;
  reject(error: DetinferError): void;
}

class WorkerProcess implements WorkerHandle {
  readonly ready: Promise<void>;
  private readonly child: ChildProcess;
  private readonly handlers: WorkerHandlers;
  private readonly calls = new Map<number, Call>();
  private readonly ended: Promise<void>;
  private onReady!: () => void;
  private onStartFailed!: (error: DetinferError) => void;
  private engineInfo: EngineInfo | null = null;
  private watchdog: Watchdog | null = null;
  private lastCallId = 0;
  /** What the worker, or the watchdog, said was wrong before the process ended. */
  private cause: DetinferError | null = null;
  private death: DetinferError | null = null;
  private isShuttingDown = false;
  private readonly oomKillsBefore = oomKills();

  constructor(args: ServerArgs, handlers: WorkerHandlers) {
    this.handlers = handlers;
    this.ready = new Promise((resolve, reject) => {
      this.onReady = resolve;
      this.onStartFailed = reject;
    });
    // Node's flags are the parent's own business: a debugger's port, for one, cannot be shared. What native code
    // prints goes to standard error, since standard output belongs to the parent.
    this.child = fork(ENTRY, [], { execArgv: [], stdio: ['ignore', 2, 2, 'ipc'] });
    this.child.on('message', (message) => this.receive(message as FromWorker, args.watchdogTimeout));
    this.ended = this.watchEnd();
    this.send({ type: 'start', args });
  }

  get info(): EngineInfo {
    return this.engineInfo!;
  }

  get pid(): number {
    return this.child.pid!;
  }

  kill(): void {
    this.child.kill('SIGKILL');
  }

  submit(requests: WorkerRequest[]): void {
    this.send({ type: 'submit', requests });
  }

  abort(ids: string[], message: string): void {
    this.send({ type: 'abort', ids, message });
  }

  async flushCache(): Promise<{ success: boolean; message: string }> {
    const answer = await this.call((callId) => ({ type: 'flushCache', callId }));
    if (answer.type !== 'flushed') throw new Error(`flushCache was answered by ${answer.type}`);
    return { success: answer.success, message: answer.message };
  }

  async status(): Promise<SchedulerStatus> {
    const answer = await this.call((callId) => ({ type: 'status', callId }));
    if (answer.type !== 'status') throw new Error(`status was answered by ${answer.type}`);
    return answer.status;
  }

  setPaused(isPaused: boolean): void {
    this.send({ type: 'pause', isPaused });
  }

  async shutdown(): Promise<void> {
    this.isShuttingDown = true;
    this.send({ type: 'shutdown' });
    const timer = setTimeout(() => this.kill(), SHUTDOWN_LIMIT_MS);
    await this.ended;
    clearTimeout(timer);
  }

  private call(makeMessage: (callId: number) => ToWorker): Promise<FromWorker> {
    if (this.death !== null) return Promise.reject(this.death);
    const callId = ++this.lastCallId;
    return new Promise((resolve, reject) => {
      this.calls.set(callId, { resolve, reject });
      this.send(makeMessage(callId));
    });
  }

  /** A message to a worker that is gone is lost; its end has been reported, or is about to be. */
  private send(message: ToWorker): void {
    if (this.child.connected) this.child.send(message, () => {});
  }

  private receive(message: FromWorker, watchdogTimeout: number): void {
    this.watchdog?.heard();
    switch (message.type) {
      case 'progress':
        this.handlers.onProgress(message.done, message.total);
        break;
      case 'ready':
        this.engineInfo = message.info;
        this.watchdog = this.watch(watchdogTimeout);
        this.onReady();
        break;
      case 'startFailed':
      case 'fatal':
        this.cause = fromErrorData(message.error);
        break;
      case 'step':
        this.handlers.onStep(message.events);
        break;
      case 'log':
        this.handlers.log(message.level, message.message);
        break;
      case 'flushed':
      case 'status':
        this.calls.get(message.callId)?.resolve(message);
        this.calls.delete(message.callId);
        break;
    }
  }

  /** @param limit in seconds. */
  private watch(limit: number): Watchdog {
    // The answer to call id 0 is dropped: that it came is all that matters.
    const ask = (): void => this.send({ type: 'status', callId: 0 });
    return new Watchdog(limit * 1000, ask, () => {
      const advice = 'raise --watchdog-timeout if a step can take that long';
      this.cause = new DetinferError('WORKER_DIED', `the worker has not answered for ${limit} s; ${advice}`);
      this.kill();
    });
  }

  private async watchEnd(): Promise<void> {
    const how = await endOf(this.child);
    this.watchdog?.stop();
    const wasKilled =
      this.cause === null && SENT_SIGNALS.includes(this.child.signalCode) && this.oomKillsBefore === oomKills();
    this.death = this.cause ?? new DetinferError('WORKER_DIED', `the worker process ${how}`);
    for (const call of this.calls.values()) call.reject(this.death);
    this.calls.clear();
    if (this.engineInfo === null) this.onStartFailed(this.death);
    else if (!this.isShuttingDown) this.handlers.onExit(this.death, wasKilled);
  }
}

/** Waits until a child has ended and all of its messages have arrived. @returns how it ended. */
function endOf(child: ChildProcess): Promise<string> {
  return new Promise((resolve) => {
    let how: string | null = null;
    // Messages may arrive after the exit, but not after the disconnection.
    const settle = (): void => {
      if (how !== null && !child.connected) resolve(how);
    };
    child.once('disconnect', settle);
    child.once('error', (error) => resolve(`could not be started: ${error.message}`));
    child.once('exit', (code, signal) => {
      how = signal === null ? `ended with exit code ${code}` : `was killed by ${signal}${hint(signal)}`;
      settle();
    });
  });
}

function hint(signal: NodeJS.Signals): string {
  return signal === 'SIGKILL' ? ' (by hand, or by the kernel because memory ran out: see dmesg)' : '';
}
