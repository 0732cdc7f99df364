import { constants } from 'node:os';
import { Command, CommanderError } from 'commander';
import { chooseDevice } from '../engine/probe.js';
import { DetinferError } from '../protocol/errors.js';
import { addFlags, type ClientFlag } from './client-command.js';
import { fromCommander } from './errors.js';
import { baseUrl, integer, text } from './flag-values.js';
import { addLaunchOptions } from './launch-options.js';
import { createLog } from './log.js';
import { findModelFolders } from './model-source.js';
import { startOwnServer } from './own-server.js';
import { DEMO_MODEL_PATH } from './package.js';

/** The flags that say which server a client command talks to. */
export interface TargetOptions {
  url?: string;
  host: string;
  port: number;
  modelPath?: string;
  attentionBackend?: string;
  device?: string;
  apiKey?: string;
}

/** A server that is ready; the process id is known only of one's own. */
export interface Target {
  url: string;
  pid: number | null;
  apiKey: string | null;
}

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

const SERVER = { group: 'Server:' };
const OWN_SERVER = { group: 'Own server:', conflicts: ['url', 'host', 'port'] };

const TARGET_FLAGS: ClientFlag[] = [
  { flags: '--host <name>', help: 'host of the running server', preset: 'localhost', ...SERVER },
  { flags: '--port <port>', help: 'its port', preset: 30000, parse: integer({ min: 1, max: 65535 }), ...SERVER },
  {
    flags: '--url <url>',
    help: 'its base URL, instead of host and port',
    parse: baseUrl(),
    ...SERVER,
    conflicts: ['host', 'port'],
  },
  { flags: '--api-key <key>', help: 'key of the server, where it asks for one', parse: text(), ...SERVER },
  {
    flags: '--model-path <model>',
    help: 'launch a server for this model, and stop it at the end',
    parse: text(),
    ...OWN_SERVER,
  },
  { flags: '--attention-backend <name>', help: 'its --attention-backend', ...OWN_SERVER },
  { flags: '--device <name>', help: 'its --device', ...OWN_SERVER },
];

/** Adds --url, --host, --port, --model-path and the flags that go on to `detinfer launch`. */
export function addTargetFlags(command: Command): Command {
  return addFlags(command, TARGET_FLAGS).argument(
    '[launch-flags...]',
    'after --: more flags of detinfer launch for the own server',
  );
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
  const apiKey = options.apiKey ?? null;
  const interrupted = new AbortController();
  let stop = async (): Promise<void> => {};
  const end = (signal: NodeJS.Signals): void => {
    onSignal();
    interrupted.abort();
    void stop().finally(() => process.exit(128 + constants.signals[signal]));
  };
  for (const signal of SIGNALS) process.once(signal, end);
  try {
    if (options.modelPath === undefined) {
      refuseOwnServerFlags(options, launchFlags);
      const url = options.url ?? `http://${bracketed(options.host)}:${options.port}`;
      return await onRunningServer({ url, pid: null, apiKey }, action);
    }
    const args = launchArgs(options, options.modelPath, launchFlags);
    await downloadModel(args);
    const starting = startOwnServer(args, interrupted.signal);
    stop = () =>
      starting.then(
        (server) => server.stop(),
        () => {},
      );
    return await action({ ...(await starting), apiKey });
  } catch (error) {
    // What a signal broke is no news: this process is about to end.
    if (interrupted.signal.aborted) return new Promise<never>(() => {});
    throw error;
  } finally {
    await stop();
    for (const signal of SIGNALS) process.off(signal, end);
  }
}

async function onRunningServer<T>(target: Target, action: (target: Target) => Promise<T>): Promise<T> {
  try {
    return await action(target);
  } catch (error) {
    if (!(error instanceof DetinferError) || error.code !== 'UNREACHABLE') throw error;
    const advice = 'Start a server with detinfer launch, or pass --model-path to have one launched.';
    throw new DetinferError('UNREACHABLE', `${error.message}. ${advice}`, { cause: error });
  }
}

function launchArgs({ attentionBackend, device, apiKey }: TargetOptions, modelPath: string, launchFlags: string[]): string[] {
  return [
    ...['--model-path', modelPath],
    ...(attentionBackend === undefined ? [] : ['--attention-backend', attentionBackend]),
    ...(device === undefined ? [] : ['--device', device]),
    ...(apiKey === undefined ? [] : ['--api-key', apiKey]),
    '--enable-deterministic-inference',
    ...launchFlags,
  ];
}

/**
 * Brings a model of the hub into the cache, where the server finds it: here a download shows how far it is, and takes
 * as long as it takes.
 */
async function downloadModel(args: string[]): Promise<void> {
  const command = new Command('launch').exitOverride().configureOutput({ outputError: () => {} });
  const options = addLaunchOptions(command, DEMO_MODEL_PATH);
  try {
    command.parse(args, { from: 'user' });
  } catch (error) {
    throw error instanceof CommanderError ? fromCommander(error) : error;
  }
  await findModelFolders(options(chooseDevice).args, createLog('info', 'text', process.stderr));
}

function refuseOwnServerFlags({ attentionBackend, device }: TargetOptions, launchFlags: string[]): void {
  const [given] = [attentionBackend && '--attention-backend', device && '--device', ...launchFlags].filter(Boolean);
  if (given === undefined) return;
  throw new DetinferError(
    'INVALID_FLAG',
    `${given} is for a server that this command launches itself: pass --model-path, too.`,
  );
}

function bracketed(host: string): string {
  return host.includes(':') ? `[${host}]` : host;
}
