import { Command, CommanderError } from 'commander';
import { NUMERIC_CONTRACT } from '../protocol/contract.js';
import { benchCommand } from './bench.js';
import { downloadCommand } from './download.js';
import { describeError, fromCommander } from './errors.js';
import { launchCommand } from './launch.js';
import { PACKAGE_VERSION } from './package.js';
import { testCommand } from './test.js';
import { verifyCommand } from './verify.js';

/** The whole command line; docs/cli.md and its check are made from it, too. */
export function buildProgram(): Command {
  const program = new Command('detinfer')
    .description('Deterministic LLM inference: the same prompt gives the same bits, alone or in any batch, cached or not.')
    .version(`detinfer ${PACKAGE_VERSION} (${NUMERIC_CONTRACT})`, '-V, --version', 'print the version and the numeric contract')
    .helpOption('-h, --help', 'print this help')
    .exitOverride()
    // Errors are printed once, by `main`.
    .configureOutput({ outputError: () => {} });
  return program
    .addCommand(launchCommand().copyInheritedSettings(program))
    .addCommand(downloadCommand().copyInheritedSettings(program))
    .addCommand(testCommand())
    .addCommand(verifyCommand())
    .addCommand(benchCommand());
}

/**
 * Runs a command line (without node and the script) to its end.
 * @returns the exit code; a server's command ends when the server has stopped
 */
export async function main(argv: string[]): Promise<number> {
  try {
    await buildProgram().parseAsync(argv, { from: 'user' });
    return Number(process.exitCode ?? 0);
  } catch (error) {
    if (error instanceof CommanderError) {
      if (error.exitCode === 0 || error.code === 'commander.help') return error.exitCode;
      process.stderr.write(`${describeError(fromCommander(error))}\n`);
    } else {
      process.stderr.write(`${describeError(error)}\n`);
    }
    return 1;
  }
}
