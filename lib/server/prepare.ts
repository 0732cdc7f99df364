import type { DetinferError } from '../protocol/errors.js';
import type { EngineInfo, LogprobRequest, WorkerRequest } from '../protocol/messages.js';
import type { Tokenizer } from '../tokenizer/tokenizer.js';
import { badValue } from './errors.js';
import type { GrammarCheck } from './grammar-check.js';
import type { Receipts } from './receipts.js';
import type { SamplingParams } from './sampling-params.js';
import type { SeedSource } from './seeds.js';
import type { SequenceSpec } from './sequence.js';
import type { GenerateRequest, PromptRequest } from './validate.js';

/** Logprobs that one request may ask for, of all its sequences and positions: what a process can hold and send. */
const MAX_LOGPROBS = 2 ** 23;

export interface PrepareContext {
  info: EngineInfo;
  tokenizer: Tokenizer | null;
  seeds: SeedSource;
  /** null: no tokenizer. */
  grammars: GrammarCheck | null;
  weightVersion: string;
  receipts: Receipts;
  /** A new id for a worker's request; those of clients may be reused before a worker has forgotten them. */
  newId: () => string;
}

/**
 * Splits a checked request into single sequences of ids: prompts are tokenized and measured, n copies get seeds of
 * their own. In the order of the answer: all copies of the first prompt, then those of the second, …
 * @throws DetinferError INVALID_REQUEST
 */
export function prepare(request: GenerateRequest, context: PrepareContext): SequenceSpec[] {
  const specs = request.prompts.flatMap((prompt) => prepareCopies(prompt, context));
  const logprobs = specs.reduce((sum, { worker }) => sum + countLogprobs(worker, context.info), 0);
  if (logprobs > MAX_LOGPROBS) {
    throw badValue(`The request asks for up to ${logprobs} logprobs; at most ${MAX_LOGPROBS} fit into one answer.`);
  }
  return specs;
}

function prepareCopies(request: PromptRequest, context: PrepareContext): SequenceSpec[] {
  const { sampling, rids } = request;
  const { n } = sampling;
  const inputIds = encode(request, context);
  const logprobs = logprobRequest(request, inputIds.length);
  const stopTokens = specialStops(sampling.stopStrings, context.tokenizer);
  const eosIds = sampling.ignoreEos ? [] : eosTokenIds(context);
  const seed = sampling.seed ?? context.seeds.draw(n);
  if (sampling.token.grammar) context.grammars!.check(sampling.token.grammar);
  const stop = {
    stopTokenIds: [...new Set([...sampling.stopTokenIds, ...eosIds, ...stopTokens.keys()])],
    minNewTokens: sampling.minNewTokens,
    maxNewTokens: sampling.maxNewTokens,
  };
  if (sampling.token.grammar && stop.stopTokenIds.length === 0) {
    throw badValue('A grammar needs a token that ends the output: leave ignore_eos out, or give stop_token_ids.');
  }
  // An id that is a stop id anyway is reported as one.
  for (const id of [...sampling.stopTokenIds, ...eosIds]) stopTokens.delete(id);
  return Array.from({ length: n }, (_, copy) => ({
    rids: n === 1 ? rids : [...rids, `${rids.at(-1)!}_${copy}`],
    request,
    worker: {
      id: context.newId(),
      inputIds,
      outputIds: [],
      sampling: { ...sampling.token, seed: seed + copy },
      stop,
      logprobs,
    },
    stopTokens,
    weightVersion: context.weightVersion,
    receipts: request.withReceipt ? context.receipts : null,
  }));
}

function encode({ prompt, addSpecialTokens, sampling }: PromptRequest, { info, tokenizer }: PrepareContext): number[] {
  const limit = promptLimit(info, sampling);
  const tooLong = (length: string): DetinferError => promptTooLong(length, info, sampling);
  if (typeof prompt !== 'string') {
    if (prompt.length > limit) throw tooLong(String(prompt.length));
    return prompt;
  }
  const perToken = tokenizer!.maxUnitsPerToken;
  // Refusing by size alone spares the time that it would take to tokenize a book.
  if (perToken !== null && prompt.length > limit * perToken) {
    throw tooLong(`at least ${Math.ceil(prompt.length / perToken)}`);
  }
  const ids = tokenizer!.encode(prompt, addSpecialTokens);
  if (ids.length === 0) throw badValue('The prompt is empty; it must have at least one token.');
  if (ids.length > limit) throw tooLong(String(ids.length));
  const unknown = ids.find((id) => id >= info.vocabSize);
  if (unknown !== undefined) {
    throw badValue(`The tokenizer made token id ${unknown}, but the model's vocabulary has ${info.vocabSize} tokens.`);
  }
  return ids;
}

/** Most tokens of a prompt, so that one can still be generated, unless none is wanted: a full answer can be scored. */
function promptLimit({ contextLength, maxTotalTokens }: EngineInfo, { maxNewTokens }: SamplingParams): number {
  return Math.min(contextLength, maxTotalTokens) - (maxNewTokens === 0 ? 0 : 1);
}

function promptTooLong(length: string, info: EngineInfo, { maxNewTokens }: SamplingParams): DetinferError {
  const { contextLength, maxTotalTokens } = info;
  const limit =
    contextLength <= maxTotalTokens
      ? `the model's context of ${contextLength} tokens`
      : `the ${maxTotalTokens} tokens that fit into the KV cache (--max-total-tokens)`;
  const what = maxNewTokens === 0 ? 'it' : 'with at least one output token it';
  return badValue(`The prompt has ${length} tokens; ${what} must fit into ${limit}.`);
}

/** What is asked of the worker: a receipt needs the output's logprobs, whether they are shown or not. */
function logprobRequest(request: PromptRequest, promptLength: number): LogprobRequest | null {
  const options = request.logprobs;
  if (options === null) return request.withReceipt ? { promptStart: promptLength, top: 0, tokenIds: [] } : null;
  if (options.start > promptLength) {
    throw badValue(`logprob_start_len is ${options.start}, but the prompt has only ${promptLength} tokens.`);
  }
  const promptStart = options.start < 0 ? promptLength : options.start;
  return { promptStart, top: options.top, tokenIds: options.tokenIds };
}

function countLogprobs({ inputIds, logprobs, stop }: WorkerRequest, { contextLength }: EngineInfo): number {
  if (logprobs === null) return 0;
  const outputs = Math.min(stop.maxNewTokens, contextLength - inputIds.length);
  return (inputIds.length - logprobs.promptStart + outputs) * (1 + logprobs.top + logprobs.tokenIds.length);
}

function eosTokenIds({ info, tokenizer }: PrepareContext): number[] {
  const eos = tokenizer?.eosTokenId ?? null;
  return eos === null || eos >= info.vocabSize ? info.eosTokenIds : [...info.eosTokenIds, eos];
}

/** Stop strings that are special tokens: decoded text may leave those out, so that no text could match. */
function specialStops(stopStrings: string[], tokenizer: Tokenizer | null): Map<number, string> {
  const stops = new Map<number, string>();
  for (const string of stopStrings) {
    const id = tokenizer?.specialTokenId(string);
    if (id !== undefined) stops.set(id, string);
  }
  return stops;
}
