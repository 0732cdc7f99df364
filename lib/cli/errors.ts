import chalk from 'chalk';
import { CommanderError } from 'commander';
import { DetinferError } from '../protocol/errors.js';
import { refusal } from './sglang-flags.js';

/** Turns what commander says about a bad command line into the project's own kind of error. */
export function fromCommander(error: CommanderError): DetinferError {
  const text = error.message.replace(/^error: /, '');
  if (error.code !== 'commander.unknownOption') {
    const [problem, suggestion] = splitSuggestion(text);
    return new DetinferError('INVALID_FLAG', `${problem}.${suggestion} See detinfer --help.`);
  }
  const [, name = text] = /unknown option '([^'=]+)/.exec(text) ?? [];
  const reason = refusal(name);
  if (reason !== undefined) return new DetinferError('UNSUPPORTED', `${name}: ${reason}.`);
  return new DetinferError('INVALID_FLAG', `unknown flag ${name}.${splitSuggestion(text)[1]} See --help for the flags.`);
}

/** The text of an error for a terminal: the project's own errors with their code, anything else with its stack. */
export function describeError(error: unknown): string {
  if (error instanceof DetinferError) return `${chalk.red.bold('error')} ${chalk.red(error.code)}: ${error.message}`;
  return `${chalk.red.bold('error')}: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`;
}

/** Splits commander's "… (Did you mean x?)" into the problem and " Did you mean x?". */
function splitSuggestion(text: string): [problem: string, suggestion: string] {
  const [problem = '', suggestion] = text.split('\n');
  return [problem, suggestion === undefined ? '' : ` ${suggestion.replace(/^\(|\)$/g, '')}`];
}
