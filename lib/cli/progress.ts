import { SingleBar, Presets } from 'cli-progress';
import type { LogFormat } from '../protocol/server-args.js';
import type { Log } from '../server/context.js';
import { formatBytes } from './format.js';

/** Shows how far the weights are: a bar on a terminal, a line per quarter elsewhere. */
export interface WeightProgress {
  update(doneBytes: number, totalBytes: number): void;
  /** Ends the display; safe to call twice. */
  stop(): void;
}

export function createWeightProgress(stream: NodeJS.WriteStream, log: Log, format: LogFormat): WeightProgress {
  return stream.isTTY && format === 'text' ? new BarProgress(stream) : new LineProgress(log);
}

class BarProgress implements WeightProgress {
  private readonly bar: SingleBar;

  constructor(stream: NodeJS.WriteStream) {
    const options = {
      stream,
      format: 'Loading weights |{bar}| {percentage}% of {size}',
      hideCursor: true,
      clearOnComplete: true,
      // The command has its own handling of signals.
      gracefulExit: false,
    };
    this.bar = new SingleBar(options, Presets.shades_classic);
  }

  update(doneBytes: number, totalBytes: number): void {
    if (!this.bar.isActive) this.bar.start(totalBytes, 0, { size: formatBytes(totalBytes) });
    this.bar.update(doneBytes);
  }

  stop(): void {
    if (this.bar.isActive) this.bar.stop();
  }
}

class LineProgress implements WeightProgress {
  private quarters = 0;

  constructor(private readonly log: Log) {}

  update(doneBytes: number, totalBytes: number): void {
    const quarters = totalBytes === 0 ? 4 : Math.floor((4 * doneBytes) / totalBytes);
    if (quarters <= this.quarters) return;
    this.quarters = quarters;
    this.log('info', `Loading weights: ${quarters * 25}% of ${formatBytes(totalBytes)}`);
  }

  stop(): void {}
}
