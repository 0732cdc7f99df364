const CHECKS_PER_LIMIT = 4;
/** A longer delay of a timer would be taken for none. */
const MAX_DELAY_MS = 2 ** 31 - 1;

/** Notices a worker that hangs: one that sends nothing for too long after it was asked for a sign of life. */
export class Watchdog {
  private readonly ask: () => void;
  private readonly onSilence: () => void;
  private readonly timer: NodeJS.Timeout;
  /** Checks since the question that nothing has followed; null: no question is open. */
  private silentChecks: number | null = null;

  /**
   * @param limitMs longest silence after a question.
   * @param ask makes a living worker send something.
   * @param onSilence called once.
   */
  constructor(limitMs: number, ask: () => void, onSilence: () => void) {
    this.ask = ask;
    this.onSilence = onSilence;
    const delay = Math.min(limitMs / CHECKS_PER_LIMIT, MAX_DELAY_MS);
    this.timer = setInterval(() => this.check(), delay).unref();
  }

  /** The worker has sent something. */
  heard(): void {
    this.silentChecks = null;
  }

  stop(): void {
    clearInterval(this.timer);
  }

  /** Counts its own turns instead of reading a clock: while this process was stopped, it could hear nothing. */
  private check(): void {
    if (this.silentChecks === null) {
      this.silentChecks = 0;
      this.ask();
    } else if (++this.silentChecks === CHECKS_PER_LIMIT) {
      this.stop();
      this.onSilence();
    }
  }
}
