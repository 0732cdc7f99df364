import { DetinferError } from '../protocol/errors.js';
import { type Receipt, RECEIPT_VERSION } from './receipt.js';

type Check = (value: unknown) => boolean;

const text: Check = (value) => typeof value === 'string';
const number: Check = (value) => Number.isFinite(value);
const integer: Check = (value) => Number.isSafeInteger(value);
const id: Check = (value) => integer(value) && (value as number) >= 0 && (value as number) < 2 ** 31;
const listOf = (item: Check): Check => (value) => Array.isArray(value) && value.every(item);
const orNull = (check: Check): Check => (value) => value === null || check(value);
const digest: Check = (value) => text(value) && /^(dummy:)?sha256:[0-9a-f]{64}$/.test(value as string);
/** The one text of its bytes. */
const base64: Check = (value) => text(value) && Buffer.from(value as string, 'base64').toString('base64') === value;
const oneOf = (...values: unknown[]): Check => (value) => values.includes(value);
const bias: Check = (value) => Array.isArray(value) && value.length === 2 && id(value[0]) && number(value[1]);
/** Exactly these fields. */
const object = (fields: Record<string, Check>): Check => (value) =>
  typeof value === 'object' &&
  value !== null &&
  Object.keys(value).every((key) => Object.hasOwn(fields, key)) &&
  Object.entries(fields).every(([key, check]) => check((value as Record<string, unknown>)[key]));

const finish: Check = (value) => {
  const forms = [
    object({ type: oneOf('stop'), matched: (matched) => id(matched) || text(matched) }),
    object({ type: oneOf('length'), length: id }),
    object({ type: oneOf('abort'), message: text }),
  ];
  return forms.some((isForm) => isForm(value));
};

const signature = object({ algorithm: oneOf('ed25519'), key: digest, value: base64 });

const FIELDS: Record<keyof Receipt, Check> = {
  version: oneOf(RECEIPT_VERSION),
  numeric_contract: text,
  model: object({ weights: digest, config: digest, tokenizer: orNull(digest) }),
  prompt_ids: (value) => listOf(id)(value) && (value as unknown[]).length > 0,
  sampling: object({
    ...{ temperature: number, top_k: integer, top_p: number, min_p: number, seed: integer },
    ...{ frequency_penalty: number, presence_penalty: number, repetition_penalty: number, logit_bias: listOf(bias) },
    grammar: orNull(object({ kind: oneOf('json_schema', 'regex', 'ebnf'), text })),
    ...{ stop_token_ids: listOf(id), min_new_tokens: id, max_new_tokens: integer },
  }),
  output_ids: listOf(id),
  finish_reason: finish,
  logprobs: base64,
  logprobs_digest: digest,
  signature: (value) => value === undefined || signature(value),
};

/**
 * Reads the text of a receipt. A field that this version does not know is refused: it could mean anything.
 * @throws DetinferError INVALID_RECEIPT
 */
export function parseReceipt(source: string): Receipt {
  let value: unknown;
  try {
    value = JSON.parse(source);
  } catch (error) {
    throw invalid(`The receipt is not valid JSON: ${(error as Error).message}`);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw invalid('The receipt is no JSON object.');
  }
  const { version } = value as { version?: unknown };
  if (version !== RECEIPT_VERSION) {
    throw invalid(
      `The receipt has version ${JSON.stringify(version)}, and this detinfer reads version ${RECEIPT_VERSION}. ` +
        'Pass what an answer has as meta_info.receipt.',
    );
  }
  const unknown = Object.keys(value).find((key) => !Object.hasOwn(FIELDS, key));
  if (unknown !== undefined) {
    throw invalid(`The receipt has a field ${JSON.stringify(unknown)} that version ${RECEIPT_VERSION} does not know.`);
  }
  for (const [key, check] of Object.entries(FIELDS)) {
    if (!check((value as Record<string, unknown>)[key])) throw invalid(`The receipt's ${key} is missing or malformed.`);
  }
  return value as Receipt;
}

export function invalid(message: string): DetinferError {
  return new DetinferError('INVALID_RECEIPT', message);
}
