import type { ErrorData } from './errors.js';
import type { StopConditions, TokenSampling } from './sampling.js';
import type { LogLevel, ServerArgs } from './server-args.js';

/** A request as the scheduler sees it: ids in, ids out. One sequence; batches and n > 1 are split before. */
export interface WorkerRequest {
  /** Unique among the live requests of a worker. */
  id: string;
  inputIds: number[];
  /**
   * The output so far of a request that another worker began: it goes on behind these tokens as if it had never stopped.
   * Where there are any, what is to be said about the prompt has been said.
   */
  outputIds: number[];
  sampling: TokenSampling;
  stop: StopConditions;
  logprobs: LogprobRequest | null;
}

export interface LogprobRequest {
  /**
   * Index of the first prompt token that gets an entry; its own logprob is null, since nothing precedes the
   * first scored row. Equal to the prompt's length when no prompt logprobs are wanted.
   */
  promptStart: number;
  /** Number of most likely tokens to report at each position. */
  top: number;
  /** Token ids whose logprobs are reported at each position. */
  tokenIds: number[];
}

/** Log-probabilities of one position under softmax(logits / temperature), before penalties, biases and filters. */
export interface TokenLogprob {
  tokenId: number;
  /** null for a prompt token that no row scores. */
  logprob: number | null;
  /** Most likely first, ties to the lower id. Absent unless asked for; null where logprob is null. */
  top?: [logprob: number, tokenId: number][] | null;
  /** In the order of LogprobRequest.tokenIds. Absent unless asked for; null where logprob is null. */
  ids?: [logprob: number, tokenId: number][] | null;
}

export type FinishReason =
  | { type: 'stop'; matched: number | string }
  | { type: 'length'; length: number }
  | { type: 'abort'; message: string; code?: string };

/** What one scheduler step did for one request. Events of a request arrive in order; the one with `finish` is the last. */
export interface RequestEvent {
  id: string;
  /** Sent once, with the request's first event. */
  prompt?: { cachedTokens: number; logprobs: TokenLogprob[] };
  tokens: number[];
  /** One entry per element of `tokens` when logprobs were asked for. */
  logprobs?: TokenLogprob[];
  finish?: FinishReason;
}

/** What the scheduler is doing, for /server_info, logs and metrics. */
export interface SchedulerStatus {
  runningRequests: number;
  waitingRequests: number;
  /** Tokens that the KV pages hold at most. */
  totalTokens: number;
  /** Tokens of pages that running requests hold. */
  usedTokens: number;
  /** Tokens in the prefix cache, in use or not. */
  cachedTokens: number;
  /** Share of the prompt tokens of all requests so far that were found in the prefix cache. */
  cacheHitRate: number;
  preemptions: number;
  /** Pages dropped from the prefix cache to make room. */
  evictions: number;
  steps: number;
  /** CPU time of the engine's steps, on all threads. */
  engineCpuSeconds: number;
}

/** Facts about a loaded model, known once the worker is ready. */
export interface EngineInfo {
  numericContract: string;
  modelType: string;
  architectures: string[];
  device: string;
  /** Instruction set of the CPU path or name of the GPU. */
  deviceName: string;
  dtype: string;
  attentionBackend: string;
  vocabSize: number;
  contextLength: number;
  /** Tokens that end a generation, from generation_config.json or config.json; requests bring them as stop ids. */
  eosTokenIds: number[];
  /** Tokens per KV page. */
  pageSize: number;
  maxTotalTokens: number;
  maxRunningRequests: number;
  chunkedPrefillSize: number;
  weightBytes: number;
  /** Bytes of weights that one decoded token must read. */
  weightBytesPerToken: number;
  kvBytesPerToken: number;
  kvBytes: number;
  threads: number;
}

/** Messages travel as JSON, so every number in them is finite. */
export type ToWorker =
  | { type: 'start'; args: ServerArgs }
  | { type: 'submit'; requests: WorkerRequest[] }
  /** Aborted requests get a last event with finish.type 'abort', unless they have ended before. */
  | { type: 'abort'; ids: string[]; message: string }
  | { type: 'flushCache'; callId: number }
  | { type: 'status'; callId: number }
  /** Plan no step while paused; everything else goes on. */
  | { type: 'pause'; isPaused: boolean }
  /** Finish nothing more: abort what is live and exit with code 0. */
  | { type: 'shutdown' };

export type FromWorker =
  | { type: 'progress'; phase: 'weights'; done: number; total: number }
  | { type: 'ready'; info: EngineInfo }
  | { type: 'startFailed'; error: ErrorData }
  /** The events of one step, for all requests that it touched. */
  | { type: 'step'; events: RequestEvent[] }
  | { type: 'flushed'; callId: number; success: boolean; message: string }
  | { type: 'status'; callId: number; status: SchedulerStatus }
  /** A line for the server's log. */
  | { type: 'log'; level: LogLevel; message: string }
  /** The engine can't go on; the worker exits after this. */
  | { type: 'fatal'; error: ErrorData };
