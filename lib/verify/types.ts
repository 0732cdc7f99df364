import type { ServerFacts } from '../client/server-facts.js';

export const MODE_NAMES = ['single', 'prefix', 'radix_cache', 'p_vs_d', 'mixed'] as const;
export type ModeName = (typeof MODE_NAMES)[number];

/** The mode that compares servers with each other; the others test one. */
export const BACKENDS_MODE = 'backends';

/** The flags of `detinfer test` that say what is sent; names as in SGLang's test. */
export interface TestOptions {
  nTrials: number;
  /** Batch size of the first trial. */
  nStart: number;
  temperature: number;
  samplingSeed: number;
  maxNewTokens: number;
  frequencyPenalty: number;
  presencePenalty: number;
  topP: number | null;
  topK: number | null;
  minP: number | null;
  returnLogprob: boolean;
  stream: boolean;
  /** Seed of everything random in the test's own prompts and traffic. */
  randomSeed: number;
  /** null: as the server reports it. */
  vocabSize: number | null;
}

/** Where an answer came from. */
export interface Origin {
  trial: number;
  /** Number of prompts in the request. */
  batchSize: number;
  /** Index in the batch. */
  index: number;
  /** What was special about the request, such as "cached". */
  role?: string;
}

/** One of the two sides of a difference. */
export interface DifferenceSide {
  origin: Origin;
  tokenId: number | null;
  tokenText: string | null;
  logprob: number | null;
  /** The answer around the difference, where only texts could be compared. */
  excerpt: string | null;
}

export interface Difference {
  kind: 'token' | 'logprob' | 'length' | 'text' | 'field' | 'finish reason';
  /** Position within the prompt or within the output; characters for the kinds "text" and "field" (the JSON of others). */
  position: number;
  part: 'prompt' | 'output';
  sides: [DifferenceSide, DifferenceSide];
  /** true when the logprobs were not part of the answers and come from scoring both tokens afterwards. */
  scoredAfterwards: boolean;
}

/** One line of the result: answers that had to be equal. */
export interface CheckResult {
  name: string;
  total: number;
  /** Number of distinct answers to one question; the largest where the check asks several questions. */
  unique: number;
  /** Tokens that were compared. */
  tokens: number;
  differences: Difference[];
}

export interface ModeResult {
  mode: ModeName | typeof BACKENDS_MODE;
  /** Why the mode could not be tested, or null. */
  error: string | null;
  checks: CheckResult[];
  /** What was adapted to the server for this mode. */
  notes: string[];
  seconds: number;
}

export interface TestReport {
  url: string;
  server: ServerFacts;
  /** Whether prompts were text or token ids. */
  prompts: 'text' | 'ids';
  options: TestOptions;
  /** What was adapted to the server for all modes. */
  notes: string[];
  modes: ModeResult[];
}

/** Whether a check compared something and found it equal, found a difference, or compared nothing. */
export function verdict({ total, unique }: CheckResult): 'same' | 'different' | 'nothing compared' {
  if (unique > 1) return 'different';
  return total > 1 ? 'same' : 'nothing compared';
}

/** 0: every unique count is 1; 1: one is not; 2: something could not be tested. */
export function exitCode({ modes }: TestReport): 0 | 1 | 2 {
  const verdicts = modes.flatMap((mode) => mode.checks.map(verdict));
  if (verdicts.includes('different')) return 1;
  const complete = modes.length > 0 && modes.every((mode) => mode.error === null && mode.checks.length > 0);
  return complete && verdicts.every((one) => one === 'same') ? 0 : 2;
}
