import { availableParallelism } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';

import { DetinferError, toErrorData } from '../protocol/errors.js';
import type { EngineInfo, RequestEvent } from '../protocol/messages.js';
import type { LogLevel, ServerArgs } from '../protocol/server-args.js';
import type { startWorker, WorkerHandle } from './supervisor.js';

const FIRST_DELAY_MS = 250;
const MAX_DELAY_MS = 30_000;

export interface ReplicaHandlers {
  log(level: LogLevel, message: string): void;
  /** Of the first start. */
  onProgress(done: number, total: number): void;
  onStep(events: RequestEvent[]): void;
  /** A new worker is ready, after the first. */
  onUp(): void;
  /** The worker is gone; another is being started. @param wasKilled see WorkerHandlers.onExit */
  onDown(error: DetinferError, wasKilled: boolean): void;
  /** No worker could be started; it is tried again. */
  onStartFailed(error: DetinferError): void;
}

/** A place for one worker: starts it, and another whenever it dies, with growing pauses while that does not help. */
export class Replica {
  /** Null while there is none. */
  worker: WorkerHandle | null = null;
  /** Requests that the worker has. */
  load = 0;
  /** Starts in a row that failed since the last worker was lost. */
  failedStarts = 0;
  /** Workers that failed, or failed to start, since one did a step. */
  private failures = 0;
  private isPaused = false;
  /** Aborted to end the worker, or the start of one. */
  private ending = new AbortController();
  private isClosed = false;
  /** Never rejects. */
  private starting: Promise<void> = Promise.resolve();

  constructor(
    readonly index: number,
    private args: ServerArgs,
    private readonly handlers: ReplicaHandlers,
    private readonly start: typeof startWorker,
  ) {}

  /**
   * Starts the first worker.
   * @param maxTotalTokens size of its KV cache; null: what the flags make of it.
   * @throws DetinferError why it could not; there is nothing to close then.
   */
  async open(maxTotalTokens: number | null): Promise<EngineInfo> {
    const args = { ...this.args, maxTotalTokens: maxTotalTokens ?? this.args.maxTotalTokens };
    const launched = this.launch(args, this.handlers.onProgress);
    this.starting = launched.catch(() => {});
    await launched;
    return this.worker!.info;
  }

  /** Whether the worker plans steps, and every worker after it. */
  setPaused(isPaused: boolean): void {
    this.isPaused = isPaused;
    this.worker?.setPaused(isPaused);
  }

  /** Ends the worker, or the start of one, for good. */
  async close(): Promise<void> {
    this.isClosed = true;
    this.ending.abort();
    await this.starting;
    await this.worker?.shutdown();
    this.worker = null;
  }

  /**
   * Loads the weights of another folder into a new worker, after the end of the old one, whose requests are forgotten.
   * @param info of the model: the new one must have the same.
   * @throws DetinferError why not. There is no worker then: restore() starts one.
   */
  async reload(modelPath: string, info: EngineInfo): Promise<void> {
    await this.leave(modelPath);
    if (this.isClosed) throw new DetinferError('SHUTTING_DOWN', 'the server is shutting down');
    const args = { ...this.args, maxTotalTokens: info.maxTotalTokens };
    const loaded = this.launch(args, () => {}).then(() => this.checkModel(info));
    this.starting = loaded.catch(() => {});
    await loaded;
  }

  /**
   * Goes back to the folder that was served before a reload that failed here or elsewhere. Resolves when a worker is up,
   * or could not be started at once: then it is tried again, as after a death, and nobody should wait for it.
   */
  async restore(modelPath: string, info: EngineInfo): Promise<void> {
    await this.leave(modelPath);
    if (this.isClosed) return;
    await new Promise<void>((resolve) => {
      this.starting = this.startAnother(info, resolve).then(resolve);
    });
  }

  /** Ends the worker, or the start of one; the next one serves this folder. */
  async leave(modelPath: string): Promise<void> {
    this.ending.abort();
    await this.starting;
    const { worker } = this;
    // What it still says is of no interest: its requests may go on elsewhere.
    this.worker = null;
    this.load = this.failedStarts = 0;
    await worker?.shutdown();
    this.args = { ...this.args, modelPath };
    this.ending = new AbortController();
  }

  private async launch(args: ServerArgs, onProgress: ReplicaHandlers['onProgress']): Promise<void> {
    let worker: WorkerHandle | null = null;
    worker = await this.start(
      args,
      {
        log: this.handlers.log,
        onProgress,
        onStep: (events) => {
          if (this.worker !== worker) return;
          this.failures = 0;
          this.handlers.onStep(events);
        },
        onExit: (error, wasKilled) => this.replace(worker!.info, error, wasKilled),
      },
      this.ending.signal,
    );
    // Before any request can reach it.
    if (this.isPaused) worker.setPaused(true);
    this.worker = worker;
  }

  private replace(info: EngineInfo, error: DetinferError, wasKilled: boolean): void {
    this.worker = null;
    this.load = 0;
    if (this.ending.signal.aborted) return;
    this.handlers.log('error', `worker ${this.index} is gone, starting another: ${error.code}: ${error.message}`);
    if (!wasKilled) this.failures++;
    this.starting = this.startAnother(info);
    this.handlers.onDown(error, wasKilled);
  }

  /** Resolves when a worker is up, or nobody wants one any more. Never rejects. */
  private async startAnother(info: EngineInfo, onFailure = (): void => {}): Promise<void> {
    const { signal } = this.ending;
    const began = performance.now();
    // The length of an answer may depend on the size of the KV cache, so it must not follow the memory that is free now.
    const args = { ...this.args, maxTotalTokens: info.maxTotalTokens };
    while (this.worker === null) {
      await pause(this.failures, signal);
      if (signal.aborted) return;
      try {
        await this.launch(args, () => {});
        await this.checkModel(info);
      } catch (error) {
        if (signal.aborted) return;
        this.failures++;
        this.failedStarts++;
        const { code, message } = toErrorData(error);
        this.handlers.log('error', `worker ${this.index} could not be started again: ${code}: ${message}`);
        this.handlers.onStartFailed(new DetinferError(code, message));
        onFailure();
      }
    }
    this.failedStarts = 0;
    this.handlers.log('info', `worker ${this.index} is back after ${Math.round(performance.now() - began)} ms`);
    this.handlers.onUp();
  }

  /** Another model would go on with other bits. @throws DetinferError INVALID_MODEL; the worker is gone then. */
  private async checkModel(info: EngineInfo): Promise<void> {
    const worker = this.worker!;
    if (isDeepStrictEqual(worker.info, info)) return;
    this.worker = null;
    await worker.shutdown();
    throw new DetinferError('INVALID_MODEL', `${this.args.modelPath} holds another model than was served before`);
  }
}

/** Waits before a start: not at all at the first, then longer and longer. */
async function pause(failures: number, signal: AbortSignal): Promise<void> {
  if (failures <= 1) return;
  const delay = Math.min(FIRST_DELAY_MS * 2 ** (failures - 2), MAX_DELAY_MS);
  await sleep(delay, undefined, { signal }).catch(() => {});
}

/** Of the replica with this index: a GPU of its own, or its share of the CPU and memory of the machine. */
export function replicaArgs(args: ServerArgs, index: number): ServerArgs {
  const { dpSize, device, memFractionStatic, threads } = args;
  if (device !== 'cpu') return { ...args, baseGpuId: args.baseGpuId + index };
  if (dpSize === 1) return args;
  return {
    ...args,
    memFractionStatic: memFractionStatic / dpSize,
    threads: threads ?? Math.max(1, Math.floor(availableParallelism() / dpSize)),
  };
}
