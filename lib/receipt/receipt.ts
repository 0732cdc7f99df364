import type { FinishReason } from '../protocol/messages.js';
import type { GrammarSpec, StopConditions, TokenSampling } from '../protocol/sampling.js';
import { digestOf } from './digest.js';
import { packLogprobs } from './logprobs.js';

/** Version of the form of receipts. */
export const RECEIPT_VERSION = 1;

/** What an answer was computed with. Digests are sha256:HEX. */
export interface ModelDigests {
  /** Of the content of the safetensors files, in the order of their names; `dummy:` and `config` for dummy weights. */
  weights: string;
  /** Of the canonical JSON of config.json with the overrides laid over it. */
  config: string;
  /** Of tokenizer.json; null for a server without a tokenizer. */
  tokenizer: string | null;
}

/** TokenSampling and StopConditions, under the names that they have in JSON. */
export interface ReceiptSampling {
  temperature: number;
  top_k: number;
  top_p: number;
  min_p: number;
  frequency_penalty: number;
  presence_penalty: number;
  repetition_penalty: number;
  logit_bias: [tokenId: number, bias: number][];
  grammar: GrammarSpec | null;
  seed: number;
  stop_token_ids: number[];
  min_new_tokens: number;
  max_new_tokens: number;
}

export interface ReceiptSignature {
  algorithm: 'ed25519';
  /** Digest of the public key (SPKI, DER). */
  key: string;
  /** Of the canonical JSON of the receipt without this field, in base64. */
  value: string;
}

/** All that it takes to compute an answer again and to compare it bit for bit. */
export interface Receipt {
  version: typeof RECEIPT_VERSION;
  numeric_contract: string;
  model: ModelDigests;
  prompt_ids: number[];
  sampling: ReceiptSampling;
  output_ids: number[];
  finish_reason: FinishReason;
  /** Base64 of the output tokens' log-probabilities as little-endian f32. */
  logprobs: string;
  /** Of those bytes. */
  logprobs_digest: string;
  signature?: ReceiptSignature;
}

/** What a server knows about an answer that has finished. */
export interface Answered {
  inputIds: number[];
  sampling: TokenSampling;
  stop: StopConditions;
  outputIds: number[];
  /** One per output token. */
  logprobs: ArrayLike<number>;
  finish: FinishReason;
}

/** The receipt of an answer, not signed. */
export function makeReceipt(numericContract: string, model: ModelDigests, answered: Answered): Receipt {
  const { sampling, stop } = answered;
  const logprobs = packLogprobs(answered.logprobs);
  return {
    version: RECEIPT_VERSION,
    numeric_contract: numericContract,
    model,
    prompt_ids: answered.inputIds,
    sampling: {
      temperature: sampling.temperature,
      top_k: sampling.topK,
      top_p: sampling.topP,
      min_p: sampling.minP,
      frequency_penalty: sampling.frequencyPenalty,
      presence_penalty: sampling.presencePenalty,
      repetition_penalty: sampling.repetitionPenalty,
      logit_bias: sampling.logitBias,
      grammar: sampling.grammar,
      seed: sampling.seed,
      stop_token_ids: stop.stopTokenIds,
      min_new_tokens: stop.minNewTokens,
      max_new_tokens: stop.maxNewTokens,
    },
    output_ids: answered.outputIds,
    finish_reason: answered.finish,
    logprobs: logprobs.toString('base64'),
    logprobs_digest: digestOf(logprobs),
  };
}

/** The sampling parameters and stop conditions of a receipt, as the scheduler takes them. */
export function samplingOf({ sampling }: Receipt): { sampling: TokenSampling; stop: StopConditions } {
  return {
    sampling: {
      temperature: sampling.temperature,
      topK: sampling.top_k,
      topP: sampling.top_p,
      minP: sampling.min_p,
      frequencyPenalty: sampling.frequency_penalty,
      presencePenalty: sampling.presence_penalty,
      repetitionPenalty: sampling.repetition_penalty,
      logitBias: sampling.logit_bias,
      grammar: sampling.grammar,
      seed: sampling.seed,
    },
    stop: {
      stopTokenIds: sampling.stop_token_ids,
      minNewTokens: sampling.min_new_tokens,
      maxNewTokens: sampling.max_new_tokens,
    },
  };
}
