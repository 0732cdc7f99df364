import { Option, type Command } from 'commander';
import { DetinferError } from '../protocol/errors.js';
import type { DeviceChoice } from '../engine/probe.js';
import type { ServerArgs } from '../protocol/server-args.js';
import type { ParseValue } from './flag-values.js';
import { describeDefault, FLAG_LIST, toServerArgs, type FlagKey } from './server-flags.js';
import { ACCEPTED_FLAGS } from './sglang-flags.js';

export interface LaunchOptions {
  args: ServerArgs;
  /** Lines to print: flags that were given and change nothing, and why the GPU is not used. */
  notes: string[];
}

/**
 * Declares every flag of `detinfer launch` on a command and returns a function that reads them after parsing.
 * @param demoModelPath folder that is served when no model is given
 * @returns a function whose argument chooses the device if none is given
 */
export function addLaunchOptions(
  command: Command,
  demoModelPath: string,
): (chooseDevice: () => DeviceChoice) => LaunchOptions {
  const seen = new Set<string>();
  const given = new Map<FlagKey, unknown>();
  const notes: string[] = [];

  for (const flag of FLAG_LIST) {
    const help = flag.value === null ? flag.help : `${flag.help} (default: ${describeDefault(flag)})`;
    for (const name of [flag.name, ...(flag.aliases ?? [])]) {
      const option = declare(command, name, flag.value, help, (text) => {
        claimOnce(seen, flag.name, name);
        given.set(flag.key, parseValue(name, flag.parse, text));
      });
      option.helpGroup(`${flag.group}:`).hideHelp(name !== flag.name);
    }
  }
  for (const { names, value, parse, note } of ACCEPTED_FLAGS) {
    for (const name of names) {
      const option = declare(command, name, value, note, (text) => {
        claimOnce(seen, names[0], name);
        parseValue(name, parse, text);
        notes.push(`${name}${value === null ? '' : ` ${text}`}: ${note}`);
      });
      option.hideHelp();
    }
  }

  return (chooseDevice) => {
    const values = Object.fromEntries(given) as Partial<Pick<ServerArgs, FlagKey>>;
    const choice = values.device === undefined ? chooseDevice() : { device: values.device, note: null };
    if (choice.note !== null) notes.push(choice.note);
    const args = toServerArgs({ ...values, device: choice.device }, demoModelPath);
    for (const { key, name, only } of FLAG_LIST) {
      if (given.has(key) && only !== undefined && only !== args.device) notes.push(`${name}: no effect on a CPU`);
    }
    return { args, notes };
  };
}

/** Adds an option whose value goes to `take` alone; commander's own store of values is not used. */
function declare(
  command: Command,
  names: string,
  value: string | null,
  help: string,
  take: (text: string) => void,
): Option {
  const option = new Option(value === null ? names : `${names} <${value}>`, help);
  command.addOption(option);
  command.on(`option:${option.name()}`, (text?: string | null) => take(text ?? ''));
  return option;
}

/** A flag given twice is a mistake in the command line: neither value is known to be the one that was meant. */
function claimOnce(seen: Set<string>, canonicalName: string, name: string): void {
  if (seen.has(canonicalName)) throw new DetinferError('INVALID_FLAG', `${name} is given twice; give it once.`);
  seen.add(canonicalName);
}

function parseValue<T>(name: string, parse: ParseValue<T>, text: string): T {
  try {
    return parse(text);
  } catch (error) {
    if (error instanceof DetinferError) throw error;
    throw new DetinferError('INVALID_FLAG', `${name} ${(error as Error).message}.`);
  }
}
