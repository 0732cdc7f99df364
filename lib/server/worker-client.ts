import type { DetinferError } from '../protocol/errors.js';
import type { EngineInfo, RequestEvent, SchedulerStatus, WorkerRequest } from '../protocol/messages.js';
import type { LogLevel, ServerArgs } from '../protocol/server-args.js';

export type Log = (level: LogLevel, message: string) => void;

/** A worker process with a loaded model, as the server uses it. */
export interface WorkerClient {
  readonly info: EngineInfo;
  /** Every request gets events, the last of them with `finish`, unless the worker exits. */
  submit(requests: WorkerRequest[]): void;
  /** Ids that have ended are passed over. */
  abort(ids: string[], message: string): void;
  flushCache(): Promise<{ success: boolean; message: string }>;
  status(): Promise<SchedulerStatus>;
  /** Resolves when the process is gone. */
  shutdown(): Promise<void>;
}

export interface WorkerHandlers {
  onProgress(done: number, total: number): void;
  onStep(events: RequestEvent[]): void;
  /** The worker ended without having been told to, after it was ready. */
  onExit(error: DetinferError): void;
  log: Log;
}

/** @throws DetinferError when the worker can't load the model. */
export type StartWorker = (args: ServerArgs, handlers: WorkerHandlers) => Promise<WorkerClient>;
