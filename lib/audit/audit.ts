import type { Engine, SampleSpec } from '../engine/types.js';
import { Grammars } from '../grammar/grammars.js';
import type { GrammarMatcher } from '../grammar/matcher.js';
import { DetinferError } from '../protocol/errors.js';
import { digestOf } from '../receipt/digest.js';
import { unpackLogprobs } from '../receipt/logprobs.js';
import { invalid } from '../receipt/read.js';
import { type Receipt, samplingOf } from '../receipt/receipt.js';
import { Sampler } from '../scheduler/sampling.js';
import { Tokenizer } from '../tokenizer/tokenizer.js';
import { endingOf } from './ending.js';
import { drawTokens, scoreTokens } from './passes.js';

/** What an audit found. */
export interface Verdict {
  /** The first difference, in words; null: everything that was checked is as the receipt says. */
  difference: string | null;
  /** What cannot be known from the receipt, in words. */
  unchecked: string[];
}

/**
 * Computes an answer again from its receipt and compares every bit: log-probabilities by one scoring pass over prompt
 * and output, and what is drawn at every position. The engine must have the receipt's model, and as many tokens of KV
 * cache as prompt and output have.
 * @param tokenizerPath folder of tokenizer.json, which grammars need; null: there is none.
 * @throws DetinferError INVALID_RECEIPT for one that no server of this model can have written
 */
export function audit(receipt: Receipt, engine: Engine, tokenizerPath: string | null): Verdict {
  const ending = endingOf(receipt, engine.info.contextLength);
  const unchecked = ending.unchecked === null ? [] : [ending.unchecked];
  const difference =
    logprobsProblem(receipt) ?? refused(() => compare(receipt, engine, tokenizerPath)) ?? ending.problem;
  return { difference, unchecked };
}

/** What the engine or a grammar refuses, a server has not computed either. */
function refused<T>(check: () => T): T {
  try {
    return check();
  } catch (error) {
    if (!(error instanceof DetinferError && error.code === 'INVALID_REQUEST')) throw error;
    throw invalid(`No server can have answered this: ${error.message}`);
  }
}

/** Whether the receipt fits itself. */
function logprobsProblem({ logprobs, logprobs_digest: digest, output_ids: outputs }: Receipt): string | null {
  const bytes = Buffer.from(logprobs, 'base64');
  if (bytes.length !== 4 * outputs.length) {
    throw invalid(`The receipt has ${outputs.length} output tokens and ${bytes.length / 4} log-probabilities.`);
  }
  const found = digestOf(bytes);
  return found === digest ? null : `the log-probabilities have the digest ${found}, and logprobs_digest is ${digest}`;
}

/** The first token whose id or log-probability is not what the engine computes. */
function compare(receipt: Receipt, engine: Engine, tokenizerPath: string | null): string | null {
  const { prompt_ids: prompt, output_ids: outputs } = receipt;
  checkIds(receipt, engine);
  if (outputs.length === 0) return null;
  const { sampling, stop } = samplingOf(receipt);
  const sampler = new Sampler(sampling, stop, null, matcherOf(receipt, engine, tokenizerPath));
  const sequence = { tokens: Int32Array.from([...prompt, ...outputs]), promptLength: prompt.length };
  const claimed = unpackLogprobs(Buffer.from(receipt.logprobs, 'base64'));
  const { logprobTemperature } = sampler;
  const scored = scoreTokens(engine, sequence, logprobTemperature);
  const drawn = drawTokens(engine, sequence, specs(sampler, prompt.length, outputs), logprobTemperature);
  for (let i = 0; i < outputs.length; i++) {
    if (drawn[i] !== outputs[i]) {
      return `output token ${i}: the receipt has id ${outputs[i]}, and this model draws ${drawn[i]}`;
    }
    if (!Object.is(scored[i], claimed[i])) {
      return (
        `output token ${i} (id ${outputs[i]}): the receipt has the log-probability ${claimed[i]}, ` +
        `and this model computes ${scored[i]}`
      );
    }
  }
  return null;
}

/** As the scheduler makes it. */
function matcherOf(receipt: Receipt, { info }: Engine, tokenizerPath: string | null): GrammarMatcher | null {
  const { grammar, stop_token_ids: stopIds } = receipt.sampling;
  if (grammar === null) return null;
  if (tokenizerPath === null) throw invalid('The receipt has a grammar and no tokenizer, which a grammar needs.');
  const grammars = new Grammars(() => Tokenizer.load(tokenizerPath).textTokens(info.vocabSize));
  return grammars.matcher(grammar, stopIds);
}

/**
 * How the token behind each position is drawn. Ends with the first output that the grammar does not allow: another one
 * is drawn there, and behind it the grammar has no state.
 */
function* specs(sampler: Sampler, promptLength: number, outputs: readonly number[]): Generator<SampleSpec> {
  for (const [i, token] of outputs.entries()) {
    const { penalties, ...spec } = sampler.spec(promptLength - 1 + i, i);
    // The sampler's counts change with the next token.
    const copied = penalties && { ...penalties, ids: ids(penalties.ids), counts: ids(penalties.counts) };
    yield { ...spec, penalties: copied };
    if (spec.allowed !== null && ((spec.allowed[token >>> 5]! >>> (token & 31)) & 1) === 0) return;
    sampler.record(token);
  }
}

function ids(values: ArrayLike<number>): Int32Array {
  return Int32Array.from(values);
}

function checkIds({ prompt_ids: prompt, output_ids: outputs, sampling }: Receipt, { info }: Engine): void {
  const biased = sampling.logit_bias.map(([id]) => id);
  const unknown = [prompt, outputs, sampling.stop_token_ids, biased].flat().find((id) => id >= info.vocabSize);
  if (unknown !== undefined) {
    throw invalid(`The receipt has token id ${unknown}; the model has ${info.vocabSize} tokens.`);
  }
}
