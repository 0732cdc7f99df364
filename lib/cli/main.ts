import { Command, CommanderError } from 'commander';
import { NUMERIC_CONTRACT } from '../protocol/contract.js';
import { COMMANDS } from './commands.js';
import { describeError, fromCommander } from './errors.js';
import { PACKAGE_VERSION } from './package.js';

/**
 * The command line; docs/cli.md and its check are made from it, too.
 * @param argv commands that do not occur in it have no flags and no action; null: all are complete
 */
export async function buildProgram(argv: string[] | null = null): Promise<Command> {
  const program = new Command('detinfer')
    .description('Deterministic LLM inference: the same prompt gives the same bits, alone or in any batch, cached or not.')
    .version(`detinfer ${PACKAGE_VERSION} (${NUMERIC_CONTRACT})`, '-V, --version', 'print the version and the numeric contract')
    .helpOption('-h, --help', 'print this help')
    .exitOverride()
    // Errors are printed once, by `main`.
    .configureOutput({ outputError: () => {} });
  for (const { name, aliases, description, load } of COMMANDS) {
    const command = new Command(name).aliases(aliases).description(description).copyInheritedSettings(program);
    program.addCommand(command);
    if (argv === null || [name, ...aliases].some((each) => argv.includes(each))) (await load())(command);
  }
  return program;
}

/**
 * Runs a command line (without node and the script) to its end.
 * @returns the exit code; a server's command ends when the server has stopped
 */
export async function main(argv: string[]): Promise<number> {
  for (const stream of [process.stdout, process.stderr]) stream.on('error', passOverClosedPipe);
  try {
    const program = await buildProgram(argv);
    await program.parseAsync(argv, { from: 'user' });
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

/** A server goes on, and a test has its exit code, although nobody reads the output any more: `| grep -m1 ready`, say. */
function passOverClosedPipe(error: NodeJS.ErrnoException): void {
  if (error.code !== 'EPIPE') throw error;
}
