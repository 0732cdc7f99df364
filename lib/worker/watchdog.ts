/** Notices a worker that hangs: one that sends nothing for too long after it was asked for a sign of life. */
export class Watchdog {
  private readonly limitMs: number;
  private readonly ask: () => void;
  private readonly onSilence: () => void;
  private readonly timer: NodeJS.Timeout;
  private askedAt: number | null = null;

  /**
   * @param limitMs longest silence after a question.
   * @param ask makes a living worker send something.
   * @param onSilence called once.
   */
  constructor(limitMs: number, ask: () => void, onSilence: () => void) {
    this.limitMs = limitMs;
    this.ask = ask;
    this.onSilence = onSilence;
    this.timer = setInterval(() => this.check(), limitMs / 4).unref();
  }

  /** The worker has sent something. */
  heard(): void {
    this.askedAt = null;
  }

  stop(): void {
    clearInterval(this.timer);
  }

  private check(): void {
    const now = performance.now();
    if (this.askedAt === null) {
      this.askedAt = now;
      this.ask();
    } else if (now - this.askedAt >= this.limitMs) {
      this.stop();
      this.onSilence();
    }
  }
}
