import { writeFile } from 'node:fs/promises';
import chalk from 'chalk';
import { Command, Option } from 'commander';
import { DetinferError } from '../protocol/errors.js';
import { MODES } from '../verify/modes/index.js';
import { createProgress, NO_PROGRESS } from '../verify/progress.js';
import { formatReport, type Style } from '../verify/report.js';
import { toJson } from '../verify/reporters/json.js';
import { toJunit } from '../verify/reporters/junit.js';
import { runTest } from '../verify/run.js';
import { exitCode, MODE_NAMES, type ModeName, type TestOptions } from '../verify/types.js';
import { describeError } from './errors.js';
import { decimal, integer, oneOf, type ParseValue } from './flag-values.js';
import { addTargetOptions, COULD_NOT_RUN, exitWithTwoOnBadFlags, parser, withTarget, type TargetOptions } from './target.js';

/** The flags without a default are absent where they are not given. */
type Optional = 'topP' | 'topK' | 'minP' | 'vocabSize' | 'returnLogprob' | 'stream';

interface Flags extends Omit<TestOptions, Optional>, Partial<Pick<TestOptions, Optional>>, TargetOptions {
  testMode: ModeName | 'all';
  json?: string;
  junit?: string;
  progress: boolean;
}

const COLOURS: Style = {
  good: chalk.green,
  bad: chalk.red.bold,
  warn: chalk.yellow,
  strong: chalk.bold,
  dim: chalk.dim,
};

/** `detinfer test`: exit code 0 when every answer was the same each time, 1 when not, 2 when that could not be tested. */
export function testCommand(): Command {
  const command = new Command('test')
    .alias('test-deterministic')
    .description('check over HTTP that a server gives the same bits in any batch, cached or not');
  const modes = MODE_NAMES.map((name) => `  ${name.padEnd(12)} ${MODES[name].summary}`).join('\n');
  exitWithTwoOnBadFlags(addTargetOptions(command)).addHelpText(
    'after',
    `\nModes:\n${modes}\n\nExit code 0: every unique count is 1; 1: one is not; 2: could not test.`,
  );
  const add = (group: string, flags: string, help: string, preset?: unknown, parse?: ParseValue<unknown>): void => {
    const option = new Option(flags, help).helpGroup(group);
    if (preset !== undefined) option.default(preset);
    if (parse !== undefined) option.argParser(parser(parse));
    command.addOption(option);
  };
  add('Test:', '--test-mode <mode>', `${MODE_NAMES.join(', ')} or all`, 'single', oneOf(...MODE_NAMES, 'all'));
  add('Test:', '--n-trials <n>', 'trials per mode', 50, integer({ min: 1 }));
  add('Test:', '--n-start <n>', 'batch size of the first trial', 1, integer({ min: 1 }));
  add('Test:', '--random-seed <n>', "seed of the test's own random prompts and traffic", 42, integer({ min: 0 }));
  add('Test:', '--vocab-size <n>', 'upper limit of random token ids, where the server does not tell it', undefined, integer({ min: 1 }));
  add('Sampling:', '--temperature <t>', 'temperature', 0, decimal({ min: 0 }));
  add('Sampling:', '--sampling-seed <n>', 'sampling seed', 42, integer());
  add('Sampling:', '--max-new-tokens <n>', 'tokens per answer', 100, integer({ min: 1 }));
  add('Sampling:', '--frequency-penalty <x>', 'frequency penalty', 0, decimal({ min: -2, max: 2 }));
  add('Sampling:', '--presence-penalty <x>', 'presence penalty', 0, decimal({ min: -2, max: 2 }));
  add('Sampling:', '--top-p <p>', 'top-p', undefined, decimal({ exclusiveMin: 0, max: 1 }));
  add('Sampling:', '--top-k <k>', 'top-k', undefined, integer({ min: 1, also: [-1] }));
  add('Sampling:', '--min-p <p>', 'min-p', undefined, decimal({ min: 0, max: 1 }));
  add('Sampling:', '--return-logprob', 'compare logprobs, too, as exact numbers');
  add('Sampling:', '--stream', 'ask for streamed answers');
  add('Output:', '--json <file>', 'write the report as JSON');
  add('Output:', '--junit <file>', 'write the report as JUnit XML');
  add('Output:', '--no-progress', 'show no progress');
  command.action(async (launchFlags: string[]) => {
    process.exitCode = await test(command.opts<Flags>(), launchFlags);
  });
  return command;
}

async function test(flags: Flags, launchFlags: string[]): Promise<number> {
  const progress = flags.progress ? createProgress(process.stderr) : NO_PROGRESS;
  const modes = flags.testMode === 'all' ? [...MODE_NAMES] : [flags.testMode];
  try {
    const report = await withTarget(flags, launchFlags, () => progress.stop(), ({ url }) => {
      return runTest(url, modes, testOptions(flags), progress);
    });
    process.stdout.write(`${formatReport(report, COLOURS).join('\n')}\n`);
    if (flags.json !== undefined) await write(flags.json, toJson(report));
    if (flags.junit !== undefined) await write(flags.junit, toJunit(report));
    return exitCode(report);
  } catch (error) {
    process.stderr.write(`${describeError(error)}\n`);
    return COULD_NOT_RUN;
  }
}

/** Only what the test itself needs, so that the JSON report has no more. */
function testOptions(flags: Flags): TestOptions {
  const { nTrials, nStart, temperature, samplingSeed, maxNewTokens, frequencyPenalty, presencePenalty, randomSeed } = flags;
  const { topP = null, topK = null, minP = null, vocabSize = null, returnLogprob = false, stream = false } = flags;
  return {
    ...{ nTrials, nStart, temperature, samplingSeed, maxNewTokens, frequencyPenalty, presencePenalty },
    ...{ topP, topK, minP, returnLogprob, stream, randomSeed, vocabSize },
  };
}

async function write(path: string, text: string): Promise<void> {
  try {
    await writeFile(path, text);
  } catch (error) {
    throw new DetinferError('INVALID_FLAG', `could not write the report: ${(error as Error).message}`);
  }
}
