import chalk from 'chalk';
import type { Command } from 'commander';
import { DetinferError } from '../protocol/errors.js';
import { MODES } from '../verify/modes/index.js';
import { createProgress, NO_PROGRESS } from '../verify/progress.js';
import { formatReport, type Style } from '../verify/report.js';
import { toJson } from '../verify/reporters/json.js';
import { toJunit } from '../verify/reporters/junit.js';
import { runTest } from '../verify/run.js';
import { BACKENDS_MODE, exitCode, MODE_NAMES, type ModeName, type TestOptions, type TestReport } from '../verify/types.js';
import {
  addFlags,
  exitWithTwoOnBadFlags,
  printLines,
  setExitCode,
  writeReport,
  type ClientFlag,
} from './client-command.js';
import { baseUrl, decimal, integer, list, oneOf, text } from './flag-values.js';
import { addTargetFlags, withTarget, type TargetOptions } from './target.js';
import { COMPARABLE, compareBackends, type Comparable } from './test-backends.js';

/** The flags without a default are absent where they are not given. */
type Optional = 'topP' | 'topK' | 'minP' | 'vocabSize' | 'returnLogprob' | 'stream';

interface Flags extends Omit<TestOptions, Optional>, Partial<Pick<TestOptions, Optional>>, TargetOptions {
  testMode: ModeName | 'all' | typeof BACKENDS_MODE;
  backends?: Comparable[];
  urls?: string[];
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

const TEST = { group: 'Test:' };
const SAMPLING = { group: 'Sampling:' };
const OUTPUT = { group: 'Output:' };

const FLAGS: ClientFlag[] = [
  {
    flags: '--test-mode <mode>',
    help: `${MODE_NAMES.join(', ')}, all of these, or ${BACKENDS_MODE}`,
    preset: 'single',
    parse: oneOf(...MODE_NAMES, 'all', BACKENDS_MODE),
    ...TEST,
  },
  { flags: '--n-trials <n>', help: 'trials per mode', preset: 50, parse: integer({ min: 1 }), ...TEST },
  { flags: '--n-start <n>', help: 'batch size of the first trial', preset: 1, parse: integer({ min: 1 }), ...TEST },
  {
    flags: '--random-seed <n>',
    help: "seed of the test's own random prompts and traffic",
    preset: 42,
    parse: integer({ min: 0 }),
    ...TEST,
  },
  {
    flags: '--vocab-size <n>',
    help: 'upper limit of random token ids, where the server does not tell it',
    parse: integer({ min: 1 }),
    ...TEST,
  },
  {
    flags: '--backends <names>',
    help: `mode ${BACKENDS_MODE}: what to launch and compare, of ${COMPARABLE.join(', ')} (default: all that the device has)`,
    parse: list(oneOf(...COMPARABLE)),
    conflicts: ['url', 'host', 'port', 'urls', 'attentionBackend'],
    ...TEST,
  },
  {
    flags: '--urls <urls>',
    help: `mode ${BACKENDS_MODE}: running servers to compare, instead of launching them`,
    parse: list(baseUrl()),
    conflicts: ['url', 'host', 'port', 'modelPath'],
    ...TEST,
  },
  { flags: '--temperature <t>', help: 'temperature', preset: 0, parse: decimal({ min: 0 }), ...SAMPLING },
  { flags: '--sampling-seed <n>', help: 'sampling seed', preset: 42, parse: integer(), ...SAMPLING },
  { flags: '--max-new-tokens <n>', help: 'tokens per answer', preset: 100, parse: integer({ min: 1 }), ...SAMPLING },
  { flags: '--frequency-penalty <x>', help: 'frequency penalty', preset: 0, parse: penalty, ...SAMPLING },
  { flags: '--presence-penalty <x>', help: 'presence penalty', preset: 0, parse: penalty, ...SAMPLING },
  { flags: '--top-p <p>', help: 'top-p', parse: decimal({ exclusiveMin: 0, max: 1 }), ...SAMPLING },
  { flags: '--top-k <k>', help: 'top-k', parse: integer({ min: 1, also: [-1] }), ...SAMPLING },
  { flags: '--min-p <p>', help: 'min-p', parse: decimal({ min: 0, max: 1 }), ...SAMPLING },
  { flags: '--return-logprob', help: 'compare logprobs, too, as exact numbers', ...SAMPLING },
  { flags: '--stream', help: 'ask for streamed answers', ...SAMPLING },
  { flags: '--json <file>', help: 'write the report as JSON', parse: text(), ...OUTPUT },
  { flags: '--junit <file>', help: 'write the report as JUnit XML', parse: text(), ...OUTPUT },
  { flags: '--no-progress', help: 'show no progress', ...OUTPUT },
];

/** `detinfer test`: exit code 0 when every answer was the same each time, 1 when not, 2 when it could not be tested. */
export function defineTest(command: Command): void {
  const summaries = [
    ...MODE_NAMES.map((name) => [name, MODES[name].summary]),
    [BACKENDS_MODE, 'the same requests to one backend after another, every field of the answers'],
  ];
  const modes = summaries.map(([name = '', summary]) => `  ${name.padEnd(12)} ${summary}`).join('\n');
  const codes = 'Exit code 0: every unique count is 1; 1: one is not; 2: could not test.';
  addFlags(addTargetFlags(exitWithTwoOnBadFlags(command)), FLAGS)
    .addHelpText('after', `\nModes:\n${modes}\n\n${codes}`)
    .action(async (launchFlags: string[]) => {
      await setExitCode(() => test(command.opts<Flags>(), launchFlags));
    });
}

async function test(flags: Flags, launchFlags: string[]): Promise<number> {
  const report = await runModes(flags, launchFlags);
  printLines(formatReport(report, COLOURS));
  await writeReport(flags.json, toJson(report));
  await writeReport(flags.junit, toJunit(report));
  return exitCode(report);
}

async function runModes(flags: Flags, launchFlags: string[]): Promise<TestReport> {
  const progress = flags.progress ? createProgress(process.stderr) : NO_PROGRESS;
  const { testMode, backends, urls } = flags;
  if (testMode === BACKENDS_MODE) return compareBackends(flags, launchFlags, testOptions(flags), progress);
  if (backends !== undefined || urls !== undefined) {
    const flag = backends === undefined ? '--urls' : '--backends';
    throw new DetinferError('INVALID_FLAG', `${flag} is for --test-mode ${BACKENDS_MODE}`);
  }
  const modes = testMode === 'all' ? [...MODE_NAMES] : [testMode];
  const onSignal = (): void => progress.stop();
  return withTarget(flags, launchFlags, onSignal, ({ url, apiKey }) => {
    return runTest(url, modes, testOptions(flags), progress, apiKey);
  });
}

/** Only what the test itself needs, so that the JSON report has no more. */
function testOptions(flags: Flags): TestOptions {
  const { nTrials, nStart, temperature, samplingSeed, maxNewTokens, frequencyPenalty, presencePenalty, randomSeed } =
    flags;
  const { topP = null, topK = null, minP = null, vocabSize = null, returnLogprob = false, stream = false } = flags;
  return {
    ...{ nTrials, nStart, temperature, samplingSeed, maxNewTokens, frequencyPenalty, presencePenalty },
    ...{ topP, topK, minP, returnLogprob, stream, randomSeed, vocabSize },
  };
}

function penalty(value: string): number {
  return decimal({ min: -2, max: 2 })(value);
}
