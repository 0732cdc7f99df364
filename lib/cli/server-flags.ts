import { ATTENTION_BACKENDS, type Device, type ServerArgs } from '../protocol/server-args.js';
import { decimal, integer, jsonObject, oneOf, text, threadCount, type ParseValue } from './flag-values.js';

export const GROUPS = ['Model', 'Server', 'Determinism and kernels', 'Memory and scheduling', 'Logging'] as const;

/** A default that depends on the device that runs the model. */
export class PerDevice<T> {
  constructor(
    readonly cpu: T,
    readonly cuda: T,
  ) {}
}

/** Everything about one flag of `detinfer launch`. Its name is its key in kebab case: modelPath is --model-path. */
export interface ServerFlag<T> {
  group: (typeof GROUPS)[number];
  aliases?: string[];
  /** Placeholder of the value in help; null for a switch, which takes none. */
  value: string | null;
  parse: ParseValue<T>;
  /** undefined: computed from the other flags by `toServerArgs`, as `defaultText` says. */
  default: T | PerDevice<T> | undefined;
  /** Says what the default means where its value alone does not. */
  defaultText?: string;
  /** The only device on which the flag has an effect. */
  only?: Device;
  help: string;
}

/** The keys of ServerArgs that have a flag; the rest is derived. */
export type FlagKey = Exclude<keyof ServerArgs, 'isDemoModel'>;

const switchFlag = (group: ServerFlag<boolean>['group'], help: string): ServerFlag<boolean> => ({
  group,
  value: null,
  parse: () => true,
  default: false,
  help,
});

/**
 * The one table of `detinfer launch`: the command line's options, --help, ServerArgs and the table in docs/cli.md all
 * come from it. Names and meanings are SGLang's; detinfer's own are --threads, --signing-key, --max-body-size,
 * --request-timeout, --drain-timeout and --log-format.
 */
const SERVER_FLAGS: { [K in FlagKey]: ServerFlag<ServerArgs[K]> } = {
  modelPath: {
    group: 'Model',
    aliases: ['--model'],
    value: 'MODEL',
    parse: text(),
    default: undefined,
    defaultText: 'the demo model',
    help: 'folder with config.json and safetensors weights, or a name on the hub: organization/model',
  },
  tokenizerPath: {
    group: 'Model',
    value: 'MODEL',
    parse: text(),
    default: undefined,
    defaultText: 'the model',
    help: 'folder with tokenizer.json, or a name on the hub',
  },
  revision: {
    group: 'Model',
    value: 'NAME',
    parse: text(),
    default: null,
    defaultText: 'main',
    help: 'branch, tag or commit of a --model-path on the hub',
  },
  skipTokenizerInit: switchFlag('Model', 'serve without a tokenizer: token ids in, token ids out'),
  loadFormat: {
    group: 'Model',
    value: 'FORMAT',
    parse: oneOf('auto', 'dummy'),
    default: 'auto',
    help: 'auto: safetensors; dummy: reproducible pseudo-random weights made from config.json alone',
  },
  trustRemoteCode: switchFlag('Model', 'accepted for compatibility: code in a model folder is never run'),
  contextLength: {
    group: 'Model',
    value: 'TOKENS',
    parse: integer({ min: 1 }),
    default: null,
    defaultText: "the model's own limit",
    help: 'longest prompt plus output',
  },
  jsonModelOverrideArgs: {
    group: 'Model',
    value: 'JSON',
    parse: jsonObject(),
    default: '{}',
    help: 'JSON object laid over config.json',
  },
  dtype: {
    group: 'Model',
    value: 'TYPE',
    parse: oneOf('auto', 'bfloat16'),
    default: 'auto',
    help: 'type of weights and activations; auto is bfloat16',
  },
  servedModelName: {
    group: 'Model',
    value: 'NAME',
    parse: text(),
    default: undefined,
    defaultText: 'the value of --model-path',
    help: 'model name that /v1/models reports',
  },
  chatTemplate: {
    group: 'Model',
    value: 'FILE',
    parse: text(),
    default: null,
    defaultText: "the model's own",
    help: 'Jinja template that turns the messages of a chat into a prompt',
  },
  weightVersion: {
    group: 'Model',
    value: 'NAME',
    parse: text(),
    default: 'default',
    help: 'weight_version in every answer',
  },

  host: {
    group: 'Server',
    value: 'ADDRESS',
    parse: text(),
    default: '127.0.0.1',
    help: 'address to listen on',
  },
  port: {
    group: 'Server',
    value: 'PORT',
    parse: integer({ min: 0, max: 65535 }),
    default: 30000,
    help: 'port to listen on; 0 takes a free one and prints it',
  },
  apiKey: {
    group: 'Server',
    value: 'KEY',
    parse: text(),
    default: null,
    defaultText: 'none is asked for',
    help: 'key that clients must send as Authorization: Bearer KEY; /health, /health_generate and /metrics need none',
  },
  signingKey: {
    group: 'Server',
    value: 'FILE',
    parse: text(),
    default: null,
    defaultText: 'receipts are not signed',
    help: 'private key of Ed25519 (PEM) that signs receipts',
  },
  maxBodySize: {
    group: 'Server',
    value: 'BYTES',
    // A string of the engine has at most 2^29 characters.
    parse: integer({ min: 1024, max: 2 ** 29 }),
    default: 64 * 1024 * 1024,
    defaultText: '64 MiB',
    help: 'largest body of a request; a larger one is refused with status 413',
  },
  requestTimeout: {
    group: 'Server',
    value: 'SECONDS',
    parse: decimal({ exclusiveMin: 0, max: 2_000_000 }),
    default: null,
    defaultText: 'no limit',
    help: 'longest time of a request, waiting included; then it fails with status 504',
  },
  drainTimeout: {
    group: 'Server',
    value: 'SECONDS',
    parse: decimal({ min: 0, max: 2_000_000 }),
    default: 5,
    help: 'time that running requests get to end when the server is stopped',
  },
  enableMetrics: switchFlag('Server', 'serve /metrics for Prometheus'),
  skipServerWarmup: switchFlag('Server', 'skip the request that the server sends itself before it is ready'),
  streamInterval: {
    group: 'Server',
    value: 'TOKENS',
    parse: integer({ min: 1 }),
    default: 1,
    help: 'tokens between two events of a stream',
  },
  watchdogTimeout: {
    group: 'Server',
    value: 'SECONDS',
    parse: decimal({ exclusiveMin: 0 }),
    default: 300,
    help: 'give up on a worker that answers nothing for this long',
  },

  enableDeterministicInference: switchFlag(
    'Determinism and kernels',
    'sampling without a sampling_seed uses seed 42 instead of a fresh one; everything else is deterministic anyway',
  ),
  randomSeed: {
    group: 'Determinism and kernels',
    value: 'SEED',
    parse: integer({ min: 0 }),
    default: null,
    defaultText: 'drawn at start-up',
    help: 'seed of the sequence of fresh sampling seeds',
  },
  attentionBackend: {
    group: 'Determinism and kernels',
    value: 'NAME',
    parse: oneOf(...ATTENTION_BACKENDS),
    default: 'fa3',
    help: 'fa3, flashinfer or triton: the same bits from each, and on a CPU the same code',
  },
  disableCudaGraph: {
    ...switchFlag('Determinism and kernels', 'launch the kernels of every step one by one'),
    only: 'cuda',
  },
  cudaGraphMaxBs: {
    group: 'Determinism and kernels',
    value: 'N',
    parse: integer({ min: 1 }),
    default: null,
    defaultText: '256, or --max-running-requests if that is lower',
    only: 'cuda',
    help: 'largest batch of decodes that a CUDA graph is made for',
  },
  device: {
    group: 'Determinism and kernels',
    value: 'DEVICE',
    parse: oneOf('cpu', 'cuda'),
    default: undefined,
    defaultText: '`cuda` where the CUDA engine is built and a GPU answers, else `cpu`',
    help: 'device that runs the model: the same bits from each',
  },
  baseGpuId: {
    group: 'Determinism and kernels',
    value: 'N',
    parse: integer({ min: 0 }),
    default: 0,
    only: 'cuda',
    help: 'index of the GPU that runs the model',
  },
  threads: {
    group: 'Determinism and kernels',
    value: 'N',
    parse: threadCount,
    default: null,
    defaultText: 'all cores',
    help: 'CPU threads of the engine; the bits do not depend on it',
  },

  kvCacheDtype: {
    group: 'Memory and scheduling',
    value: 'TYPE',
    parse: oneOf('auto', 'bfloat16'),
    default: 'auto',
    help: 'type of the KV cache; auto is bfloat16',
  },
  memFractionStatic: {
    group: 'Memory and scheduling',
    value: 'SHARE',
    parse: decimal({ exclusiveMin: 0, max: 1 }),
    default: new PerDevice(0.85, 0.88),
    help: 'share of memory for weights and KV cache: of what is free on a CPU, of all that a GPU has',
  },
  maxTotalTokens: {
    group: 'Memory and scheduling',
    value: 'TOKENS',
    parse: integer({ min: 1 }),
    default: null,
    defaultText: 'from --mem-fraction-static',
    help: 'tokens in the KV cache',
  },
  pageSize: {
    group: 'Memory and scheduling',
    value: 'TOKENS',
    parse: pageSize,
    default: new PerDevice(16, 128),
    help: 'tokens per page of the KV cache: a multiple of 16; on a GPU 16, 32, 64, 128 and so on',
  },
  disableRadixCache: switchFlag('Memory and scheduling', 'do not reuse the KV cache of shared prefixes'),
  disableOverlapSchedule: {
    ...switchFlag('Memory and scheduling', 'do not plan the next step while the GPU runs one'),
    only: 'cuda',
  },
  maxRunningRequests: {
    group: 'Memory and scheduling',
    value: 'N',
    // The engine has buffers for so many, and counts them with 32 bits.
    parse: integer({ min: 1, max: 1_000_000 }),
    default: 256,
    help: 'requests that run at the same time',
  },
  dpSize: {
    group: 'Memory and scheduling',
    aliases: ['--dp', '--data-parallel-size'],
    value: 'N',
    parse: integer({ min: 1, max: 64 }),
    default: 1,
    help: 'workers, each with the whole model: on GPUs of their own from --base-gpu-id on, or sharing the CPU and memory',
  },
  maxQueuedRequests: {
    group: 'Memory and scheduling',
    value: 'N',
    parse: integer({ min: 1 }),
    default: null,
    defaultText: 'no limit',
    help: 'requests that wait; more are refused with status 503',
  },
  chunkedPrefillSize: {
    group: 'Memory and scheduling',
    value: 'TOKENS',
    // A step lasts as long as its prompt tokens take, and every decode waits for it: on a CPU, 256 tokens of a small
    // model are seconds already.
    parse: integer({ min: 1, also: [-1] }),
    default: new PerDevice(256, 8192),
    help: 'prompt tokens of one request per step; -1: the whole prompt at once',
  },
  maxPrefillTokens: {
    group: 'Memory and scheduling',
    value: 'TOKENS',
    parse: integer({ min: 1 }),
    default: 16384,
    help: 'prompt tokens of all requests together per step',
  },
  schedulePolicy: {
    group: 'Memory and scheduling',
    value: 'POLICY',
    parse: oneOf('fcfs'),
    default: 'fcfs',
    help: 'order of waiting requests; fcfs: first come, first served',
  },

  logLevel: {
    group: 'Logging',
    value: 'LEVEL',
    parse: oneOf('debug', 'info', 'warning', 'error'),
    default: 'info',
    help: 'least severe messages to log: debug, info, warning or error',
  },
  logFormat: {
    group: 'Logging',
    value: 'FORMAT',
    parse: oneOf('text', 'json'),
    default: 'text',
    help: 'text, or json: one JSON object per line with time, level, message and fields',
  },
  logRequests: switchFlag('Logging', 'log every request and its answer'),
  decodeLogInterval: {
    group: 'Logging',
    value: 'STEPS',
    parse: integer({ min: 1 }),
    default: 40,
    help: 'decode steps between two lines about throughput',
  },
};

/** camelCase to --kebab-case. */
function flagName(key: string): string {
  return `--${key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
}

/** The table as a list, in order of definition. */
export const FLAG_LIST = (Object.keys(SERVER_FLAGS) as FlagKey[]).map((key) => ({
  key,
  name: flagName(key),
  ...(SERVER_FLAGS[key] as ServerFlag<unknown>),
}));

/** The default as a user reads it. @param quote marks up a value that can be typed. */
export function describeDefault(flag: ServerFlag<unknown>, quote = (value: string): string => value): string {
  const preset = flag.default;
  if (flag.defaultText !== undefined) return flag.defaultText.replace(/`(.*?)`/g, (_, value: string) => quote(value));
  if (preset instanceof PerDevice) return `${quote(`${preset.cpu}`)} on a CPU, ${quote(`${preset.cuda}`)} on a GPU`;
  return quote(String(preset));
}

/** Fills in every default. `demoModelPath` is served when no model is given, on a CPU when no device is. */
export function toServerArgs(given: Partial<Pick<ServerArgs, FlagKey>>, demoModelPath: string): ServerArgs {
  const device = given.device ?? 'cpu';
  const defaultOf = (preset: unknown): unknown => (preset instanceof PerDevice ? preset[device] : preset);
  const defaults = Object.fromEntries(FLAG_LIST.map((flag) => [flag.key, defaultOf(flag.default)]));
  const isDemoModel = given.modelPath === undefined;
  const modelPath = given.modelPath ?? demoModelPath;
  return {
    ...(defaults as unknown as ServerArgs),
    tokenizerPath: modelPath,
    servedModelName: isDemoModel ? 'detinfer-demo' : modelPath,
    ...given,
    device,
    modelPath,
    isDemoModel,
  };
}

function pageSize(value: string): number {
  const size = integer({ min: 16, max: 65536 })(value);
  if (size % 16 !== 0) throw new Error(`needs a multiple of 16, not '${value}'`);
  return size;
}
