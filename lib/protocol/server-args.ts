export type AttentionBackend = 'fa3' | 'flashinfer' | 'triton';
export type LoadFormat = 'auto' | 'dummy';
export type Device = 'cpu' | 'cuda';
export type SchedulePolicy = 'fcfs';
export type LogLevel = 'debug' | 'info' | 'warning' | 'error';

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
  attentionBackend: AttentionBackend;
  enableDeterministicInference: boolean;
  /** Share of free memory that weights and KV cache may take. */
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
  /** CPU threads of the engine; null: all cores. */
  threads: number | null;
  host: string;
  port: number;
  skipServerWarmup: boolean;
  servedModelName: string;
  weightVersion: string;
  streamInterval: number;
  logLevel: LogLevel;
  logRequests: boolean;
  decodeLogInterval: number;
  watchdogTimeout: number;
  randomSeed: number | null;
}
