import type { DetinferError } from '../protocol/errors.js';
import type { Sequence } from './sequence.js';

/**
 * All sequences of one request on their way through the worker. `done` resolves when every one has finished, and
 * rejects when the request as a whole failed.
 */
export class Generation {
  readonly done: Promise<void>;
  /** Called with a sequence's index when it has something new to show; streams set it. */
  onUpdate: (index: number) => void = () => {};
  private settle!: { resolve: () => void; reject: (error: DetinferError) => void };
  private unfinished: number;
  /** Number of tokens of each sequence at its last update. */
  private readonly shown: number[];

  /**
   * @param isList whether the answer is a list.
   * @param streamInterval tokens between two updates of a sequence.
   */
  constructor(
    readonly sequences: Sequence[],
    readonly isList: boolean,
    private readonly streamInterval: number,
  ) {
    this.unfinished = sequences.length;
    this.shown = sequences.map(() => 0);
    this.done = new Promise((resolve, reject) => (this.settle = { resolve, reject }));
    // Whoever aborted the request may not be waiting any more.
    this.done.catch(() => {});
  }

  /** The answer as JSON. */
  render(): string {
    const answers = this.sequences.map((sequence) => sequence.render());
    return this.isList ? `[${answers.join(',')}]` : answers[0]!;
  }

  /** The sequence at `index` took an event in. Its first token shows at once, then every streamInterval-th. */
  updated(index: number): void {
    const sequence = this.sequences[index]!;
    const count = sequence.tokens.length;
    const shown = this.shown[index]!;
    const isDue = count > shown && (shown === 0 || count - shown >= this.streamInterval);
    if (sequence.finish || isDue) {
      this.shown[index] = count;
      this.onUpdate(index);
    }
    if (!sequence.finish) return;
    this.unfinished -= 1;
    if (this.unfinished === 0) this.settle.resolve();
  }

  fail(error: DetinferError): void {
    this.settle.reject(error);
  }
}
