import { createRequire } from 'node:module';
import type { MultiBar, SingleBar } from 'cli-progress';
import type { DownloadProgress } from '../hub/download.js';
import type { LogFormat } from '../protocol/server-args.js';
import type { Log } from '../server/context.js';
import { formatBytes, formatDuration } from './format.js';

/** Shows how far a download is: bars on a terminal, one for each file and one for all, and a line now and then elsewhere. */
export interface DownloadDisplay extends DownloadProgress {
  /** Ends the display, with a line about what was downloaded, if anything; safe to call twice. */
  stop(): void;
}

export function createDownloadDisplay(
  stream: NodeJS.WriteStream,
  log: Log,
  format: LogFormat = 'text',
): DownloadDisplay {
  return new Display(stream.isTTY && format === 'text' ? new Bars(stream) : new Lines(log), log);
}

/** Bytes of a file, or of all. */
interface Amount {
  size: number;
  done: number;
  rate: Rate;
}

interface View {
  show(path: string, file: Amount, total: Amount): void;
  hide(path: string): void;
  stop(): void;
}

class Display implements DownloadDisplay {
  private readonly files = new Map<string, Amount>();
  private readonly total: Amount = { size: 0, done: 0, rate: new Rate() };
  private readonly startedAt = performance.now();
  private received = 0;
  private finished = 0;
  private isStopped = false;

  constructor(
    private readonly view: View,
    private readonly log: Log,
  ) {}

  add(files: { path: string; size: number }[]): void {
    for (const { path, size } of files) {
      this.files.set(path, { size, done: 0, rate: new Rate() });
      this.total.size += size;
    }
  }

  resume(path: string, bytes: number): void {
    this.move(path, bytes);
  }

  advance(path: string, bytes: number): void {
    this.received += Math.max(bytes, 0);
    this.files.get(path)?.rate.add(bytes);
    this.total.rate.add(bytes);
    this.move(path, bytes);
  }

  finish(path: string): void {
    const file = this.files.get(path);
    // What another process has downloaded meanwhile.
    if (file !== undefined) this.move(path, file.size - file.done);
    this.finished += 1;
    this.view.hide(path);
  }

  stop(): void {
    if (this.isStopped) return;
    this.isStopped = true;
    this.view.stop();
    if (this.received === 0) return;
    const seconds = (performance.now() - this.startedAt) / 1000;
    const what = `${this.finished} of ${this.files.size} files are complete`;
    const speed = `${formatBytes(this.received / seconds)}/s`;
    this.log('info', `Downloaded ${formatBytes(this.received)} in ${formatDuration(seconds)} (${speed}); ${what}.`);
  }

  private move(path: string, bytes: number): void {
    const file = this.files.get(path);
    if (file === undefined || this.isStopped) return;
    file.done += bytes;
    this.total.done += bytes;
    this.view.show(path, file, this.total);
  }
}

class Bars implements View {
  private readonly bars: MultiBar;
  private readonly ofFile = new Map<string, SingleBar>();
  private ofTotal: SingleBar | null = null;

  constructor(stream: NodeJS.WriteStream) {
    const options = {
      stream,
      format: '{name} |{bar}| {percentage}% of {size}  {rate}/s  {left}',
      barsize: 24,
      clearOnComplete: true,
      // A signal ends the process at once, and a cursor that is hidden would stay so.
      hideCursor: false,
      gracefulExit: false,
    };
    // Loaded for a terminal alone: it takes longer than anything else that a log of lines needs.
    const { MultiBar, Presets } = createRequire(import.meta.url)('cli-progress') as typeof import('cli-progress');
    this.bars = new MultiBar(options, Presets.shades_classic);
  }

  show(path: string, file: Amount, total: Amount): void {
    this.ofTotal ??= this.bars.create(total.size, 0, payload('Total', total));
    this.ofTotal.setTotal(total.size);
    this.ofTotal.update(total.done, payload('Total', total));
    const bar = this.ofFile.get(path) ?? this.bars.create(file.size, 0, payload(path, file));
    this.ofFile.set(path, bar);
    bar.update(file.done, payload(path, file));
  }

  hide(path: string): void {
    const bar = this.ofFile.get(path);
    if (bar === undefined) return;
    this.bars.remove(bar);
    this.ofFile.delete(path);
  }

  stop(): void {
    this.bars.stop();
  }
}

const NAME_WIDTH = 32;

function payload(name: string, { size, done, rate }: Amount): Record<string, string> {
  const short = name.length > NAME_WIDTH ? `…${name.slice(1 - NAME_WIDTH)}` : name;
  const perSecond = rate.bytesPerSecond();
  const left = perSecond > 0 ? `${formatDuration((size - done) / perSecond)} left` : '';
  return { name: short.padEnd(NAME_WIDTH), size: formatBytes(size), rate: formatBytes(perSecond), left };
}

const LINE_INTERVAL_MS = 5000;

class Lines implements View {
  private lastAt = performance.now();

  constructor(private readonly log: Log) {}

  show(_path: string, _file: Amount, total: Amount): void {
    if (performance.now() - this.lastAt < LINE_INTERVAL_MS) return;
    this.lastAt = performance.now();
    const percent = Math.floor((100 * total.done) / Math.max(total.size, 1));
    const { rate, left } = payload('', total);
    this.log('info', `Downloading: ${percent}% of ${formatBytes(total.size)}, ${rate}/s, ${left}`);
  }

  hide(): void {}
  stop(): void {}
}

/** Bytes per second over the last few seconds. */
export class Rate {
  private readonly samples: { at: number; bytes: number }[] = [];

  constructor(private readonly clock: () => number = () => performance.now()) {}

  add(bytes: number): void {
    const at = this.clock();
    const last = this.samples.at(-1);
    // A sample per tenth of a second is enough.
    if (last !== undefined && at - last.at < 100) last.bytes += bytes;
    else this.samples.push({ at, bytes });
    while (this.samples.length > 1 && at - this.samples[0]!.at > 5000) this.samples.shift();
  }

  bytesPerSecond(): number {
    const [first] = this.samples;
    if (first === undefined) return 0;
    const seconds = Math.max(this.clock() - first.at, 100) / 1000;
    return Math.max(this.samples.reduce((sum, { bytes }) => sum + bytes, 0) / seconds, 0);
  }
}
