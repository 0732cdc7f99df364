/** The flags of `detinfer bench serving`; names as in SGLang's bench_serving. */
export interface ServingOptions {
  numPrompts: number;
  randomInputLen: number;
  randomOutputLen: number;
  /** Lengths are uniform between this share of the given ones and the given ones. */
  randomRangeRatio: number;
  /** Requests per second, as a Poisson process; null sends all at once. */
  requestRate: number | null;
  /** null: no limit. */
  maxConcurrency: number | null;
  seed: number;
  ignoreEos: boolean;
  temperature: number;
  /** null: as the server reports it. */
  vocabSize: number | null;
}

export interface PlannedRequest {
  inputIds: number[];
  outputLength: number;
  /** Seconds after the start of the benchmark. */
  arrival: number;
}

/** What was measured of one request; times in ms. */
export interface Timing {
  /** Why it failed, or null. The other values are then those until the failure. */
  error: string | null;
  inputTokens: number;
  outputTokens: number;
  firstTokenMs: number;
  totalMs: number;
  /** Time between one token and the next, for every token but the first. */
  interTokenMs: number[];
}
