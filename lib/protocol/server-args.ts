export const ATTENTION_BACKENDS = ['fa3', 'flashinfer', 'triton'] as const;
export type AttentionBackend = (typeof ATTENTION_BACKENDS)[number];
export type LoadFormat = 'auto' | 'dummy';
export type Device = 'cpu' | 'cuda';
export type SchedulePolicy = 'fcfs';
export type LogLevel = 'debug' | 'info' | 'warning' | 'error';
export type LogFormat = 'text' | 'json';

/**
 * The flags of `detinfer launch`, with every default filled in. The names are those of SGLang in camel case, so that
 * /server_info can report them under the names that its clients know.
 */
export interface ServerArgs {
  /** A folder, or a name on the hub. */
  modelPath: string;
  /** true when no --model-path was given and the demo model is served. */
  isDemoModel: boolean;
  tokenizerPath: string;
  /** Branch, tag or commit of a model on the hub; null: main. */
  revision: string | null;
  skipTokenizerInit: boolean;
  loadFormat: LoadFormat;
  trustRemoteCode: boolean;
  /** null: the model's own limit. */
  contextLength: number | null;
  /** A JSON object laid over config.json. */
  jsonModelOverrideArgs: string;
  dtype: 'auto' | 'bfloat16';
  kvCacheDtype: 'auto' | 'bfloat16';
  device: Device;
  /** Index of the GPU that runs the model. */
  baseGpuId: number;
  attentionBackend: AttentionBackend;
  disableCudaGraph: boolean;
  /** Largest batch of decodes that a CUDA graph is made for; null: see lib/engine/options.ts. */
  cudaGraphMaxBs: number | null;
  enableDeterministicInference: boolean;
  /** Share that weights and KV cache may take: of the free memory on a CPU, of all of a GPU's. */
  memFractionStatic: number;
  maxRunningRequests: number;
  /** null: no limit. */
  maxQueuedRequests: number | null;
  /** null: from memFractionStatic. */
  maxTotalTokens: number | null;
  /** Prompt tokens per step of one request; -1: no chunking. */
  chunkedPrefillSize: number;
  /** Prompt tokens per step of all requests together. */
  maxPrefillTokens: number;
  schedulePolicy: SchedulePolicy;
  pageSize: number;
  disableRadixCache: boolean;
  /** On a GPU: do not plan a step while the one before runs. */
  disableOverlapSchedule: boolean;
  /** Workers behind this server, each with the whole model. */
  dpSize: number;
  /** CPU threads of the engine; null: all cores, divided among the workers. */
  threads: number | null;
  host: string;
  port: number;
  /** null: none is asked for. */
  apiKey: string | null;
  /** File of a private key of Ed25519 in PEM that signs receipts; null: they are not signed. */
  signingKey: string | null;
  /** Bytes of a request's body. */
  maxBodySize: number;
  /** Seconds that a request may take; null: no limit. */
  requestTimeout: number | null;
  /** Seconds that running requests get to end when the server is stopped. */
  drainTimeout: number;
  enableMetrics: boolean;
  skipServerWarmup: boolean;
  servedModelName: string;
  /** File of a Jinja template; null: the model's own. */
  chatTemplate: string | null;
  weightVersion: string;
  streamInterval: number;
  logLevel: LogLevel;
  logFormat: LogFormat;
  logRequests: boolean;
  decodeLogInterval: number;
  watchdogTimeout: number;
  randomSeed: number | null;
}
