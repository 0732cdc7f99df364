import { DetinferError } from '../protocol/errors.js';
import type { FromWorker, RequestEvent, ToWorker, WorkerRequest } from '../protocol/messages.js';
import type { Scheduler } from '../scheduler/scheduler.js';
import { DecodeLog } from './decode-log.js';

/** Messages that a worker takes while it serves. */
export type ServingMessage = Exclude<ToWorker, { type: 'start' | 'shutdown' }>;

/**
 * Steps the scheduler while it is busy. Between two steps the event loop gets its turn, so that every message that has
 * arrived is heeded before the next plan, while the engine may be at work on a step that was submitted; without requests
 * nothing runs.
 */
export class WorkerLoop {
  private readonly scheduler: Scheduler;
  private readonly send: (message: FromWorker) => void;
  private readonly onError: (error: unknown) => void;
  private readonly decodeLog: DecodeLog;
  private isScheduled = false;
  private isStopped = false;
  private isPaused = false;

  /** @param onError called once with what step() throws; the loop has stopped then. */
  constructor(
    scheduler: Scheduler,
    decodeLogInterval: number,
    send: (message: FromWorker) => void,
    onError: (error: unknown) => void,
  ) {
    this.scheduler = scheduler;
    this.decodeLog = new DecodeLog(decodeLogInterval);
    this.send = send;
    this.onError = onError;
  }

  handle(message: ServingMessage): void {
    switch (message.type) {
      case 'submit':
        this.emit(message.requests.flatMap((request) => this.add(request)));
        this.wake();
        break;
      case 'abort':
        this.emit(this.scheduler.abort(message.ids, message.message));
        break;
      case 'flushCache':
        this.send({ type: 'flushed', callId: message.callId, ...this.scheduler.flushCache() });
        break;
      case 'status':
        this.send({ type: 'status', callId: message.callId, status: this.scheduler.status() });
        break;
      case 'pause':
        this.isPaused = message.isPaused;
        this.wake();
        break;
    }
  }

  /** Ends every request and steps no more. @returns the last events. */
  stop(message: string): RequestEvent[] {
    this.isStopped = true;
    return this.scheduler.abortAll(message, 'SHUTTING_DOWN');
  }

  /** Queues a request. @returns the only event of one that is refused. */
  private add(request: WorkerRequest): RequestEvent[] {
    try {
      this.scheduler.add(request);
      return [];
    } catch (error) {
      if (!(error instanceof DetinferError)) throw error;
      const { code, message } = error;
      return [{ id: request.id, tokens: [], finish: { type: 'abort', message, code } }];
    }
  }

  private emit(events: RequestEvent[]): void {
    if (events.length > 0) this.send({ type: 'step', events });
  }

  private wake(): void {
    if (this.isScheduled || this.isStopped || this.isPaused || !this.scheduler.isBusy) return;
    this.decodeLog.start();
    this.schedule();
  }

  private schedule(): void {
    this.isScheduled = true;
    setImmediate(() => this.turn());
  }

  private turn(): void {
    this.isScheduled = false;
    if (this.isStopped || this.isPaused || !this.scheduler.isBusy) return;
    try {
      const events = this.scheduler.step();
      this.emit(events);
      const line = this.decodeLog.record(events, () => this.scheduler.status());
      if (line !== null) this.send({ type: 'log', level: 'info', message: line });
    } catch (error) {
      this.isStopped = true;
      this.onError(error);
      return;
    }
    if (this.scheduler.isBusy) this.schedule();
  }
}
