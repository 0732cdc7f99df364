import { join } from 'node:path';
import { Command } from 'commander';
import { SingleBar } from 'cli-progress';
import { runNativeBench } from '../bench/native.js';
import { formatServing } from '../bench/serving/report.js';
import { benchServing } from '../bench/serving/run.js';
import type { ServingOptions } from '../bench/serving/types.js';
import { chooseDevice } from '../engine/probe.js';
import { DetinferError } from '../protocol/errors.js';
import type { Device } from '../protocol/server-args.js';
import {
  addFlags,
  exitWithTwoOnBadFlags,
  printLines,
  setExitCode,
  writeReport,
  type ClientFlag,
} from './client-command.js';
import { ENGINE_FLAGS } from './engine-flags.js';
import { decimal, integer, oneOf, text, threadCount } from './flag-values.js';
import { createLog } from './log.js';
import { findModelFolders } from './model-source.js';
import { DEMO_MODEL_PATH, PACKAGE_ROOT } from './package.js';
import { toServerArgs } from './server-flags.js';
import { addTargetFlags, withTarget, type TargetOptions } from './target.js';

/** The programs that measure kernels, and what builds them. */
const NATIVE_BENCH = {
  cpu: { program: join(PACKAGE_ROOT, 'build', 'Release', 'detinfer_bench'), build: 'npm run build' },
  cuda: {
    program: join(PACKAGE_ROOT, 'build', 'Release', 'detinfer_cuda_bench'),
    build: 'npm run build',
  },
};

/** `detinfer bench`: exit code 0 when all went well, 1 when requests failed, 2 when nothing could be measured. */
export function defineBench(command: Command): void {
  exitWithTwoOnBadFlags(command)
    .addCommand(servingCommand())
    .addCommand(decodeCommand())
    .addCommand(kernelsCommand());
}

interface ServingFlags extends TargetOptions {
  numPrompts: number;
  randomInputLen: number;
  randomOutputLen: number;
  randomRangeRatio: number;
  requestRate: number | 'inf';
  maxConcurrency?: number;
  seed: number;
  temperature: number;
  disableIgnoreEos?: boolean;
  vocabSize?: number;
  json?: string;
}

const SERVING_FLAGS: ClientFlag[] = [
  { flags: '--num-prompts <n>', help: 'number of requests', preset: 64, parse: integer({ min: 1 }) },
  { flags: '--random-input-len <n>', help: 'longest prompt, in tokens', preset: 256, parse: integer({ min: 1 }) },
  { flags: '--random-output-len <n>', help: 'longest answer, in tokens', preset: 64, parse: integer({ min: 1 }) },
  {
    flags: '--random-range-ratio <r>',
    help: 'shortest length as a share of the longest',
    preset: 0,
    parse: decimal({ min: 0, max: 1 }),
  },
  {
    flags: '--request-rate <r>',
    help: 'requests per second, at random times; inf: all at once',
    preset: 'inf',
    parse: requestRate,
  },
  { flags: '--max-concurrency <n>', help: 'most requests in flight', parse: integer({ min: 1 }) },
  { flags: '--seed <n>', help: 'seed of prompts, lengths and times', preset: 1, parse: integer({ min: 0 }) },
  { flags: '--temperature <t>', help: 'temperature', preset: 0, parse: decimal({ min: 0 }) },
  { flags: '--disable-ignore-eos', help: "let answers end at the model's stop tokens" },
  {
    flags: '--vocab-size <n>',
    help: 'upper limit of token ids, where the server does not tell it',
    parse: integer({ min: 1 }),
  },
  { flags: '--json <file>', help: 'write the result as JSON', parse: text() },
];

function servingCommand(): Command {
  const command = new Command('serving').description('send random requests to a server: throughput and latencies');
  return addFlags(addTargetFlags(exitWithTwoOnBadFlags(command)), SERVING_FLAGS).action(
    async (launchFlags: string[]) => {
      await setExitCode(() => serving(command.opts<ServingFlags>(), launchFlags));
    },
  );
}

async function serving(flags: ServingFlags, launchFlags: string[]): Promise<number> {
  const options: ServingOptions = {
    numPrompts: flags.numPrompts,
    randomInputLen: flags.randomInputLen,
    randomOutputLen: flags.randomOutputLen,
    randomRangeRatio: flags.randomRangeRatio,
    requestRate: flags.requestRate === 'inf' ? null : flags.requestRate,
    maxConcurrency: flags.maxConcurrency ?? null,
    seed: flags.seed,
    temperature: flags.temperature,
    ignoreEos: flags.disableIgnoreEos !== true,
    vocabSize: flags.vocabSize ?? null,
  };
  const bar = new SingleBar({
    format: 'requests {bar} {value}/{total}',
    hideCursor: true,
    clearOnComplete: true,
    gracefulExit: false,
  });
  const report = await withTarget(
    flags,
    launchFlags,
    () => bar.stop(),
    async ({ url, pid, apiKey }) => {
      bar.start(options.numPrompts, 0);
      return benchServing(url, pid, options, () => bar.increment(), apiKey).finally(() => bar.stop());
    },
  );
  printLines(formatServing(report));
  await writeReport(flags.json, toJson(report));
  return report.metrics.failed === 0 ? 0 : 1;
}

interface DecodeFlags {
  modelPath?: string;
  device?: Device;
  loadFormat: 'auto' | 'dummy';
  jsonModelOverrideArgs: string;
  threads?: number;
  promptTokens: number;
  newTokens: number;
  rounds: number;
  json?: string;
}

const DECODE_FLAGS: ClientFlag[] = [
  { flags: '--model-path <model>', help: 'model folder or name on the hub (the demo model by default)', parse: text() },
  ...ENGINE_FLAGS,
  { flags: '--threads <n>', help: 'CPU threads (all cores by default)', parse: threadCount },
  { flags: '--prompt-tokens <n>', help: 'tokens to prefill', preset: 256, parse: integer({ min: 1 }) },
  { flags: '--new-tokens <n>', help: 'tokens to decode', preset: 64, parse: integer({ min: 1 }) },
  { flags: '--rounds <n>', help: 'times to do it; the fastest counts', preset: 3, parse: integer({ min: 1 }) },
  { flags: '--json <file>', help: 'write the result as JSON', parse: text() },
];

function decodeCommand(): Command {
  const command = new Command('decode').description(
    'run the engine alone: decode at batch 1 and prefill against the memory floor',
  );
  return addFlags(exitWithTwoOnBadFlags(command), DECODE_FLAGS).action(async () => {
    await setExitCode(() => decode(command.opts<DecodeFlags>()));
  });
}

async function decode({
  modelPath,
  device,
  loadFormat,
  jsonModelOverrideArgs,
  threads,
  promptTokens,
  newTokens,
  rounds,
  json,
}: DecodeFlags): Promise<number> {
  // The other commands must work without the native engine, which this loads.
  const { benchDecode, formatDecode } = await import('../bench/decode.js');
  const choice = device === undefined ? chooseDevice() : { device, note: null };
  if (choice.note !== null) process.stderr.write(`${choice.note}\n`);
  const given = {
    modelPath: modelPath ?? DEMO_MODEL_PATH,
    device: choice.device,
    loadFormat,
    jsonModelOverrideArgs,
    threads: threads ?? null,
    skipTokenizerInit: true,
  };
  const args = toServerArgs(given, DEMO_MODEL_PATH);
  const { model } = await findModelFolders(args, createLog('info', 'text', process.stderr));
  const measured = benchDecode({ ...args, modelPath: model }, { promptTokens, newTokens, rounds });
  const report = { ...measured, model: args.modelPath };
  printLines(formatDecode(report));
  await writeReport(json, toJson(report));
  return 0;
}

interface KernelsFlags {
  device: Device;
  threads?: number;
}

const KERNELS_FLAGS: ClientFlag[] = [
  { flags: '--device <device>', help: 'cpu or cuda', preset: 'cpu', parse: oneOf('cpu', 'cuda') },
  { flags: '--threads <n>', help: 'CPU threads (all cores by default)', parse: threadCount },
];

function kernelsCommand(): Command {
  const command = new Command('kernels').description(
    'run the native benchmark of the kernels, next to the measured bandwidth',
  );
  return addFlags(exitWithTwoOnBadFlags(command), KERNELS_FLAGS).action(async (flags: KernelsFlags) => {
    await setExitCode(() => kernels(flags));
  });
}

async function kernels({ device, threads }: KernelsFlags): Promise<number> {
  if (device === 'cpu') {
    const args = threads === undefined ? [] : ['--threads', String(threads)];
    return runNativeBench(NATIVE_BENCH.cpu, ['kernels', ...args]);
  }
  if (threads !== undefined) throw new DetinferError('INVALID_FLAG', '--threads is for --device cpu.');
  return runNativeBench(NATIVE_BENCH.cuda, []);
}

function requestRate(value: string): number | 'inf' {
  return value === 'inf' ? value : decimal({ exclusiveMin: 0 })(value);
}

function toJson(report: object): string {
  return `${JSON.stringify(report, null, 2)}\n`;
}
