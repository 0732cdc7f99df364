import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Command, Option } from 'commander';
import { SingleBar } from 'cli-progress';
import { runNativeBench } from '../bench/native.js';
import { formatServing } from '../bench/serving/report.js';
import { benchServing } from '../bench/serving/run.js';
import type { ServingOptions } from '../bench/serving/types.js';
import { DetinferError } from '../protocol/errors.js';
import { describeError } from './errors.js';
import { decimal, integer, oneOf, text, type ParseValue } from './flag-values.js';
import { DEMO_MODEL_PATH, PACKAGE_ROOT } from './package.js';
import { toServerArgs } from './server-flags.js';
import { addTargetOptions, COULD_NOT_RUN, exitWithTwoOnBadFlags, parser, withTarget, type TargetOptions } from './target.js';

const NATIVE_BENCH = join(PACKAGE_ROOT, 'build', 'Release', 'detinfer_bench');

/** `detinfer bench`: exit code 0 when all went well, 1 when requests failed, 2 when nothing could be measured. */
export function benchCommand(): Command {
  const command = new Command('bench').description('measure a server, the engine or its kernels');
  return exitWithTwoOnBadFlags(command)
    .addCommand(servingCommand())
    .addCommand(decodeCommand())
    .addCommand(kernelsCommand());
}

interface ServingFlags extends TargetOptions {
  numPrompts: number;
  randomInputLen: number;
  randomOutputLen: number;
  randomRangeRatio: number;
  requestRate: number;
  maxConcurrency?: number;
  seed: number;
  temperature: number;
  disableIgnoreEos?: boolean;
  vocabSize?: number;
  json?: string;
}

function servingCommand(): Command {
  const command = new Command('serving').description('send random requests to a server: throughput and latencies');
  exitWithTwoOnBadFlags(addTargetOptions(command));
  option(command, '--num-prompts <n>', 'number of requests', 64, integer({ min: 1 }));
  option(command, '--random-input-len <n>', 'longest prompt, in tokens', 256, integer({ min: 1 }));
  option(command, '--random-output-len <n>', 'longest answer, in tokens', 64, integer({ min: 1 }));
  option(command, '--random-range-ratio <r>', 'shortest length as a share of the longest', 0, decimal({ min: 0, max: 1 }));
  option(command, '--request-rate <r>', 'requests per second, at random times; inf: all at once', Infinity, rate);
  option(command, '--max-concurrency <n>', 'most requests in flight', undefined, integer({ min: 1 }));
  option(command, '--seed <n>', 'seed of prompts, lengths and times', 1, integer({ min: 0 }));
  option(command, '--temperature <t>', 'temperature', 0, decimal({ min: 0 }));
  option(command, '--disable-ignore-eos', "let answers end at the model's stop tokens");
  option(command, '--vocab-size <n>', 'upper limit of token ids, where the server does not tell it', undefined, integer({ min: 1 }));
  option(command, '--json <file>', 'write the result as JSON', undefined, text());
  return command.action(async (launchFlags: string[]) => {
    await guarded(() => serving(command.opts<ServingFlags>(), launchFlags));
  });
}

async function serving(flags: ServingFlags, launchFlags: string[]): Promise<number> {
  const options: ServingOptions = {
    numPrompts: flags.numPrompts,
    randomInputLen: flags.randomInputLen,
    randomOutputLen: flags.randomOutputLen,
    randomRangeRatio: flags.randomRangeRatio,
    requestRate: Number.isFinite(flags.requestRate) ? flags.requestRate : null,
    maxConcurrency: flags.maxConcurrency ?? null,
    seed: flags.seed,
    temperature: flags.temperature,
    ignoreEos: flags.disableIgnoreEos !== true,
    vocabSize: flags.vocabSize ?? null,
  };
  const bar = new SingleBar({ format: 'requests {bar} {value}/{total}', hideCursor: true, clearOnComplete: true, gracefulExit: false });
  const report = await withTarget(flags, launchFlags, () => bar.stop(), async ({ url, pid }) => {
    bar.start(options.numPrompts, 0);
    return benchServing(url, pid, options, () => bar.increment()).finally(() => bar.stop());
  });
  print(formatServing(report));
  await writeJson(flags.json, report);
  return report.metrics.failed === 0 ? 0 : 1;
}

interface DecodeFlags {
  modelPath: string;
  loadFormat: 'auto' | 'dummy';
  threads?: number;
  promptTokens: number;
  newTokens: number;
  rounds: number;
  json?: string;
}

function decodeCommand(): Command {
  const command = new Command('decode').description('run the engine alone: decode at batch 1 and prefill against the memory floor');
  exitWithTwoOnBadFlags(command);
  const modelPath = new Option('--model-path <folder>', 'model folder').default(DEMO_MODEL_PATH, 'the demo model');
  command.addOption(modelPath.argParser(parser(text())));
  option(command, '--load-format <format>', 'auto, or dummy for random weights from config.json alone', 'auto', oneOf('auto', 'dummy'));
  option(command, '--threads <n>', 'CPU threads (all cores by default)', undefined, integer({ min: 1 }));
  option(command, '--prompt-tokens <n>', 'tokens to prefill', 256, integer({ min: 1 }));
  option(command, '--new-tokens <n>', 'tokens to decode', 64, integer({ min: 1 }));
  option(command, '--rounds <n>', 'times to do it; the fastest counts', 3, integer({ min: 1 }));
  option(command, '--json <file>', 'write the result as JSON', undefined, text());
  return command.action(async () => {
    await guarded(() => decode(command.opts<DecodeFlags>()));
  });
}

async function decode({ modelPath, loadFormat, threads, promptTokens, newTokens, rounds, json }: DecodeFlags): Promise<number> {
  // The other commands must work without the native engine, which this loads.
  const { benchDecode, formatDecode } = await import('../bench/decode.js');
  const args = toServerArgs({ modelPath, loadFormat, threads: threads ?? null }, DEMO_MODEL_PATH);
  const report = await benchDecode(args, { promptTokens, newTokens, rounds }, NATIVE_BENCH);
  print(formatDecode(report));
  await writeJson(json, report);
  return 0;
}

function kernelsCommand(): Command {
  const command = new Command('kernels').description('run the native benchmark of the CPU kernels, next to the measured bandwidth');
  exitWithTwoOnBadFlags(command);
  option(command, '--threads <n>', 'CPU threads (all cores by default)', undefined, integer({ min: 1 }));
  return command.action(async ({ threads }: { threads?: number }) => {
    await guarded(() => runNativeBench(NATIVE_BENCH, ['kernels', ...(threads === undefined ? [] : ['--threads', String(threads)])]));
  });
}

/** Sets the exit code to what `action` returns, or to COULD_NOT_RUN with the error. */
async function guarded(action: () => Promise<number>): Promise<void> {
  try {
    process.exitCode = await action();
  } catch (error) {
    process.stderr.write(`${describeError(error)}\n`);
    process.exitCode = COULD_NOT_RUN;
  }
}

function option(command: Command, flags: string, help: string, preset?: unknown, parse?: ParseValue<unknown>): void {
  const added = new Option(flags, help);
  if (preset !== undefined) added.default(preset);
  if (parse !== undefined) added.argParser(parser(parse));
  command.addOption(added);
}

function rate(value: string): number {
  return value === 'inf' ? Infinity : decimal({ exclusiveMin: 0 })(value);
}

function print(lines: string[]): void {
  process.stdout.write(`${lines.join('\n')}\n`);
}

async function writeJson(path: string | undefined, value: unknown): Promise<void> {
  if (path === undefined) return;
  try {
    await writeFile(path, `${JSON.stringify(value, null, 2)}\n`);
  } catch (error) {
    throw new DetinferError('INVALID_FLAG', `could not write the result: ${(error as Error).message}`);
  }
}
