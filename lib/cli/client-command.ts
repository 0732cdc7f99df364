/** What the commands that talk to a server or measure something have in common. */
import { writeFile } from 'node:fs/promises';
import { InvalidArgumentError, Option, type Command } from 'commander';
import { DetinferError } from '../protocol/errors.js';
import { describeError, fromCommander } from './errors.js';
import type { ParseValue } from './flag-values.js';

/** Exit code of a command that could not do its work: a bad flag, an unreachable server. */
const COULD_NOT_RUN = 2;

export interface ClientFlag {
  /** As commander writes it: '--port <port>'. */
  flags: string;
  help: string;
  /** Absent: the flag has no default. */
  preset?: unknown;
  /** Absent: the flag is a switch, or its text is its value. */
  parse?: ParseValue<unknown>;
  /** Heading in --help. */
  group?: string;
  /** Names of flags that must not be given with it, in camel case. */
  conflicts?: string[];
}

/** Adds flags to a command, in order. */
export function addFlags(command: Command, list: ClientFlag[]): Command {
  for (const { flags, help, preset, parse, group, conflicts } of list) {
    const option = new Option(flags, help).conflicts(conflicts ?? []);
    if (preset !== undefined) option.default(preset);
    if (parse !== undefined) option.argParser(parser(parse));
    if (group !== undefined) option.helpGroup(group);
    command.addOption(option);
  }
  return command;
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

/** Sets the exit code to what `action` returns, or to COULD_NOT_RUN with the error. */
export async function setExitCode(action: () => Promise<number>): Promise<void> {
  try {
    process.exitCode = await action();
  } catch (error) {
    process.stderr.write(`${describeError(error)}\n`);
    process.exitCode = COULD_NOT_RUN;
  }
}

export function printLines(lines: string[]): void {
  process.stdout.write(`${lines.join('\n')}\n`);
}

/** Writes a file that a flag named; nothing without a name. */
export async function writeReport(path: string | undefined, text: string): Promise<void> {
  if (path === undefined) return;
  try {
    await writeFile(path, text);
  } catch (error) {
    throw new DetinferError('INVALID_FLAG', `could not write the report: ${(error as Error).message}`);
  }
}

/** Turns a parser of flag values into commander's kind. */
function parser<T>(parse: ParseValue<T>): (value: string) => T {
  return (value) => {
    try {
      return parse(value);
    } catch (error) {
      throw new InvalidArgumentError((error as Error).message);
    }
  };
}
