import { DetinferError } from '../../protocol/errors.js';
import type { Tokenizer } from '../../tokenizer/tokenizer.js';
import { badValue } from '../errors.js';
import { bodyFields, boolean, type Fields, integer, string, tokenIds } from '../fields.js';
import { checkBatchSize, countSequences } from '../validate.js';
import {
  type OpenAIRequest,
  readAnswerOptions,
  readSampling,
  refuseUnsupported,
  type ServerFacts,
  wrongType,
} from './request.js';

/** OpenAI's default. */
const MAX_TOKENS = 16;

/**
 * Checks a body of /v1/completions.
 * @throws DetinferError INVALID_REQUEST (SchemaError for a wrong type) or UNSUPPORTED.
 */
export function readCompletionRequest(body: unknown, facts: ServerFacts, tokenizer: Tokenizer | null): OpenAIRequest {
  const fields = bodyFields(body);
  refuseUnsupported(fields, ['suffix']);
  const options = readAnswerOptions(fields, 'cmpl', facts);
  const { prompts, isBatch } = readPrompts(fields, facts.vocabSize);
  const sampling = readSampling(fields, { name: 'max_tokens', value: fields.raw('max_tokens') ?? MAX_TOKENS }, facts);
  refuseBestOf(fields, sampling.n);
  const echo = fields.get('echo', boolean, false);
  const top = fields.get<number | null>('logprobs', integer({ min: 0, max: facts.vocabSize }), null);
  const logprobs =
    top === null ? null : { start: echo ? 0 : -1, top, tokenIds: [], withText: false, keepEntries: true };
  countSequences(prompts.map(() => sampling));
  const textOf = (prompt: string | number[]) => (typeof prompt === 'string' ? prompt : tokenizer!.decode(prompt));
  return {
    generate: {
      prompts: prompts.map((prompt, i) => ({
        rids: isBatch ? [options.id, `${options.id}_${i}`] : [options.id],
        prompt,
        addSpecialTokens: true,
        sampling,
        logprobs,
        withReceipt: options.withReceipt,
      })),
      isList: true,
      stream: options.stream,
    },
    answer: { ...options, n: sampling.n, topLogprobs: top, echo: echo ? prompts.map(textOf) : null },
  };
}

/** A text, a list of texts, a list of ids or a list of such lists. */
function readPrompts(fields: Fields, vocabSize: number): { prompts: (string | number[])[]; isBatch: boolean } {
  const value = fields.raw('prompt');
  if (typeof value === 'string') return { prompts: [string(value, 'prompt')], isBatch: false };
  if (!Array.isArray(value)) throw wrongType('prompt', 'a string, a list of strings, or token ids', value ?? null);
  if (value.length === 0) throw badValue('prompt is an empty list.');
  const ids = tokenIds(vocabSize);
  if (typeof value[0] === 'number') return { prompts: [ids(value, 'prompt')], isBatch: false };
  checkBatchSize(value.length);
  const prompts = value.map((item, i) => {
    const path = `prompt[${i}]`;
    const prompt = Array.isArray(item) ? ids(item, path) : string(item, path);
    if (prompt.length === 0) throw badValue(`${path} is empty; a prompt has at least one token.`);
    return prompt;
  });
  return { prompts, isBatch: true };
}

/** To draw more answers than are shown would change nothing but the cost, if the best is not picked. */
function refuseBestOf(fields: Fields, n: number): void {
  const bestOf = fields.get('best_of', integer({ min: 1 }), n);
  if (bestOf !== n) {
    throw new DetinferError('UNSUPPORTED', `best_of other than n is not supported by this version; leave it out.`);
  }
}
