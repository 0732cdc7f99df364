import type { RequestEvent, SchedulerStatus } from '../protocol/messages.js';

/** Makes SGLang's "Decode batch" line, once per so many steps that yield tokens. Time spent idle does not count. */
export class DecodeLog {
  private readonly interval: number;
  private steps = 0;
  private tokens = 0;
  private busyMs = 0;
  private mark = 0;

  /** @param interval steps between two lines. */
  constructor(interval: number) {
    this.interval = interval;
  }

  /** Work begins, after none. */
  start(): void {
    this.mark = performance.now();
  }

  /** Counts a step. @returns the line when it is due, else null. */
  record(events: RequestEvent[], status: () => SchedulerStatus): string | null {
    const now = performance.now();
    this.busyMs += now - this.mark;
    this.mark = now;
    let tokens = 0;
    for (const event of events) tokens += event.tokens.length;
    if (tokens === 0) return null;
    this.tokens += tokens;
    this.steps++;
    return this.steps < this.interval ? null : this.line(status());
  }

  private line({ runningRequests, waitingRequests, usedTokens, totalTokens }: SchedulerStatus): string {
    const throughput = (1000 * this.tokens) / this.busyMs;
    this.steps = this.tokens = this.busyMs = 0;
    return (
      `Decode batch. #running-req: ${runningRequests}, #token: ${usedTokens}, ` +
      `token usage: ${(usedTokens / totalTokens).toFixed(2)}, ` +
      `gen throughput (token/s): ${throughput.toFixed(2)}, #queue-req: ${waitingRequests}`
    );
  }
}
