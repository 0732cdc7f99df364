import { SingleBar } from 'cli-progress';

/** Shows how far a run is. `stop` may be called at any time. */
export interface Progress {
  start(name: string, total: number): void;
  tick(): void;
  stop(): void;
}

export const NO_PROGRESS: Progress = { start: () => {}, tick: () => {}, stop: () => {} };

/** A bar on a terminal; elsewhere a plain line now and then, so that a CI log shows life. */
export function createProgress(stream: NodeJS.WriteStream): Progress {
  return stream.isTTY ? barProgress(stream) : plainProgress(stream);
}

function barProgress(stream: NodeJS.WriteStream): Progress {
  let bar: SingleBar | null = null;
  return {
    start(name, total) {
      bar = new SingleBar({
        stream,
        format: `${name.padEnd(11)} {bar} trial {value}/{total}  {duration_formatted}`,
        barCompleteChar: '█',
        barIncompleteChar: '░',
        barsize: 30,
        hideCursor: true,
        clearOnComplete: true,
        // The command has its own handling of signals.
        gracefulExit: false,
      });
      bar.start(total, 0);
    },
    tick: () => bar?.increment(),
    stop() {
      bar?.stop();
      bar = null;
    },
  };
}

const PLAIN_INTERVAL_MS = 10_000;

function plainProgress(stream: NodeJS.WriteStream): Progress {
  let [name, total, done, shown] = ['', 0, 0, 0];
  return {
    start(newName, newTotal) {
      [name, total, done, shown] = [newName, newTotal, 0, Date.now()];
      stream.write(`Testing mode ${name}\n`);
    },
    tick() {
      done++;
      if (done === total || Date.now() - shown < PLAIN_INTERVAL_MS) return;
      shown = Date.now();
      stream.write(`  trial ${done}/${total}\n`);
    },
    stop() {},
  };
}
