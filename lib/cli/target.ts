import { constants } from 'node:os';
import { InvalidArgumentError, Option, type Command } from 'commander';
import { DetinferError } from '../protocol/errors.js';
import { describeError, fromCommander } from './errors.js';
import { integer, text, type ParseValue } from './flag-values.js';
import { startOwnServer } from './own-server.js';

/** The flags that say which server a client command talks to. */
export interface TargetOptions {
  url?: string;
  host: string;
  port: number;
  modelPath?: string;
  attentionBackend?: string;
  device?: string;
}

/** A server that is ready; the process id is known only of one's own. */
export interface Target {
  url: string;
  pid: number | null;
}

/** Exit code of a client command that could not do its work: a bad flag, an unreachable server. */
export const COULD_NOT_RUN = 2;

/** Turns a parser of flag values into commander's kind. */
export function parser<T>(parse: ParseValue<T>): (value: string) => T {
  return (value) => {
    try {
      return parse(value);
    } catch (error) {
      throw new InvalidArgumentError((error as Error).message);
    }
  };
}

/** Adds --url, --host, --port, --model-path and the flags that go on to `detinfer launch`. */
export function addTargetOptions(command: Command): Command {
  const own = (option: Option): Option => option.conflicts(['url', 'host', 'port']).helpGroup('Own server:');
  const server = (option: Option): Option => option.helpGroup('Server:');
  return command
    .addOption(server(new Option('--host <name>', 'host of the running server').default('localhost')))
    .addOption(server(new Option('--port <port>', 'its port').default(30000).argParser(parser(integer({ min: 1, max: 65535 })))))
    .addOption(server(new Option('--url <url>', 'its base URL, instead of host and port').argParser(parser(baseUrl))).conflicts(['host', 'port']))
    .addOption(own(new Option('--model-path <folder>', 'launch a server for this model, and stop it at the end').argParser(parser(text()))))
    .addOption(own(new Option('--attention-backend <name>', 'its --attention-backend')))
    .addOption(own(new Option('--device <name>', 'its --device')))
    .argument('[launch-flags...]', 'after --: more flags of detinfer launch for the own server');
}

/**
 * Makes a command's own mistakes end with COULD_NOT_RUN, which tells a script that nothing was tested or measured.
 * Subcommands need it each.
 */
export function exitWithTwoOnBadFlags(command: Command): Command {
  return command.configureOutput({ outputError: () => {} }).exitOverride((error) => {
    if (error.exitCode === 0) process.exit(0);
    // A command that only has subcommands prints its help; that says it all.
    if (error.code !== 'commander.help') process.stderr.write(`${describeError(fromCommander(error))}\n`);
    process.exit(COULD_NOT_RUN);
  });
}

/**
 * Calls `action` with the server that the flags name, and stops it afterwards if it is one's own. A signal stops it,
 * too, and ends this process; `onSignal` is called first.
 */
export async function withTarget<T>(
  options: TargetOptions,
  launchFlags: string[],
  onSignal: () => void,
  action: (target: Target) => Promise<T>,
): Promise<T> {
  const interrupted = new AbortController();
  let stop = async (): Promise<void> => {};
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.once(signal, () => {
      onSignal();
      interrupted.abort();
      void stop().finally(() => process.exit(128 + constants.signals[signal]));
    });
  }
  try {
    if (options.modelPath === undefined) {
      refuseOwnServerFlags(options, launchFlags);
      return await onRunningServer(options.url ?? `http://${bracketed(options.host)}:${options.port}`, action);
    }
    const starting = startOwnServer(launchArgs(options, options.modelPath, launchFlags), interrupted.signal);
    stop = () => starting.then((server) => server.stop(), () => {});
    return await action(await starting);
  } catch (error) {
    // What a signal broke is no news: this process is about to end.
    if (interrupted.signal.aborted) return new Promise<never>(() => {});
    throw error;
  } finally {
    await stop();
  }
}

async function onRunningServer<T>(url: string, action: (target: Target) => Promise<T>): Promise<T> {
  try {
    return await action({ url, pid: null });
  } catch (error) {
    if (!(error instanceof DetinferError) || error.code !== 'UNREACHABLE') throw error;
    const advice = 'Start a server with detinfer launch, or pass --model-path to have one launched.';
    throw new DetinferError('UNREACHABLE', `${error.message}. ${advice}`, { cause: error });
  }
}

function launchArgs({ attentionBackend, device }: TargetOptions, modelPath: string, launchFlags: string[]): string[] {
  return [
    ...['--model-path', modelPath],
    ...(attentionBackend === undefined ? [] : ['--attention-backend', attentionBackend]),
    ...(device === undefined ? [] : ['--device', device]),
    '--enable-deterministic-inference',
    ...launchFlags,
  ];
}

function refuseOwnServerFlags({ attentionBackend, device }: TargetOptions, launchFlags: string[]): void {
  const [given] = [attentionBackend && '--attention-backend', device && '--device', ...launchFlags].filter(Boolean);
  if (given === undefined) return;
  throw new DetinferError('INVALID_FLAG', `${given} is for a server that this command launches itself: pass --model-path, too.`);
}

function baseUrl(value: string): string {
  if (!/^https?:\/\//.test(value) || !URL.canParse(value)) {
    throw new Error(`needs a URL such as http://localhost:30000, not '${value}'`);
  }
  return value;
}

function bracketed(host: string): string {
  return host.includes(':') ? `[${host}]` : host;
}
