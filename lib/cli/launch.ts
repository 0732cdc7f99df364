import type { Command } from 'commander';
import { chooseDevice } from '../engine/probe.js';
import { NUMERIC_CONTRACT } from '../protocol/contract.js';
import type { Log } from '../server/context.js';
import { curlExample, engineBanner, openingBanner } from './banner.js';
import { addLaunchOptions, type LaunchOptions } from './launch-options.js';
import { createLog } from './log.js';
import { ensureAddons } from './native-build.js';
import { DEMO_MODEL_PATH, PACKAGE_VERSION } from './package.js';
import { preflight } from './preflight.js';
import { createWeightProgress } from './progress.js';

/** SGLang's words; scripts wait for them. */
const READY_LINE = 'The server is fired up and ready to roll!';

/** Exit code of a process that Ctrl-C ends, by convention. */
const INTERRUPTED = 130;

/** Under npm one Ctrl-C arrives twice, from the terminal and from npm, which passes it on. */
const ONE_KEYPRESS_MS = 300;

/** `detinfer launch`: serves until a signal (exit code 0) or the end of the engine (exit code 1). */
export function defineLaunch(command: Command): void {
  command.addHelpText(
    'after',
    "\nSGLang's other flags are refused, or accepted with a note where there is nothing to set; docs/cli.md lists them.",
  );
  const options = addLaunchOptions(command, DEMO_MODEL_PATH);
  command.action(async () => {
    process.exitCode = await launch(options(chooseDevice));
  });
}

async function launch({ args, notes }: LaunchOptions): Promise<number> {
  const log = createLog(args.logLevel, args.logFormat);
  const folders = await preflight(args, log);
  if (args.logFormat === 'text') print(openingBanner(args, PACKAGE_VERSION, NUMERIC_CONTRACT));
  else log('info', `detinfer ${PACKAGE_VERSION}`, { numeric_contract: NUMERIC_CONTRACT, model: args.modelPath });
  for (const note of notes) log('warning', note);
  if (args.device === 'cpu') ensureAddons(log);

  // Half of the time that the other commands would take to start.
  const { startServer } = await import('../server/server.js');
  const stopRequested = stopSignal(log);
  const progress = createWeightProgress(process.stderr, log, args.logFormat);
  const onProgress = (done: number, total: number): void => progress.update(done, total);
  const starting = startServer(args, { version: PACKAGE_VERSION, log, folders, onProgress });
  const server = await Promise.race([starting, stopRequested]).finally(() => progress.stop());
  // Nobody can be waiting for an answer yet, and a worker ends with its parent.
  if (server === 'stop') process.exit(0);

  if (args.logFormat === 'text') print(engineBanner(server.info, args));
  log('info', `Listening on ${server.url}`, { engine: server.info });
  if (args.logFormat === 'text') print(`${READY_LINE}\n\nTry it:\n  ${curlExample(server.url, args)}\n`);
  else log('info', READY_LINE);

  const end = await Promise.race([server.closed, stopRequested]);
  if (end === 'stop') {
    await server.stop();
    log('info', 'Stopped.');
    return 0;
  }
  log('error', `${end.code}: ${end.message}`, { code: end.code });
  return 1;
}

/** Resolves at the first SIGINT or SIGTERM. A second Ctrl-C ends the process at once. */
function stopSignal(log: Log): Promise<'stop'> {
  return new Promise((resolve) => {
    let firstAt: number | null = null;
    const onSignal = (signal: NodeJS.Signals): void => {
      if (firstAt === null) {
        firstAt = performance.now();
        log('info', `${signal}: stopping once running requests have ended, within seconds. Ctrl-C again stops at once.`);
        resolve('stop');
      } else if (signal === 'SIGINT' && performance.now() - firstAt > ONE_KEYPRESS_MS) {
        process.exit(INTERRUPTED);
      }
    };
    process.on('SIGINT', onSignal).on('SIGTERM', onSignal);
  });
}

function print(text: string): void {
  process.stdout.write(`${text}\n`);
}
