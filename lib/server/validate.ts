import { randomUUID } from 'node:crypto';

import { DetinferError } from '../protocol/errors.js';
import { badValue, SchemaError } from './errors.js';
import { bodyFields, boolean, type Fields, integer, list, oneOrList, type Read, string, tokenIds } from './fields.js';
import { type ModelLimits, readSamplingParams, type SamplingParams } from './sampling-params.js';

/** A checked body of /generate. */
export interface GenerateRequest {
  prompts: PromptRequest[];
  /** Whether the answer is a list: for list input and for n > 1. */
  isList: boolean;
  stream: boolean;
}

export interface PromptRequest {
  /** The name of this prompt's answer, after the names of the groups that it belongs to; any of them aborts it. */
  rids: string[];
  prompt: string | number[];
  /** Whether a text gets what the model expects around one (Llama's begin-of-text, say). */
  addSpecialTokens: boolean;
  sampling: SamplingParams;
  logprobs: LogprobOptions | null;
  /** Whether the answer carries a receipt. */
  withReceipt?: boolean;
}

export interface LogprobOptions {
  /** Index of the first prompt token that gets an entry; -1: none does. */
  start: number;
  top: number;
  tokenIds: number[];
  /** Whether entries carry the text of their tokens. */
  withText: boolean;
  /** The sequence keeps the entries as they are, for an answer of another form than that of /generate. */
  keepEntries?: boolean;
}

/** The number of sequences of a request. @throws DetinferError INVALID_REQUEST for too many. */
export function countSequences(sampling: readonly SamplingParams[]): number {
  const sequences = sampling.reduce((sum, params) => sum + params.n, 0);
  if (sequences > MAX_SEQUENCES) {
    throw badValue(`The request asks for ${sequences} sequences; at most ${MAX_SEQUENCES} fit into one.`);
  }
  return sequences;
}

/** @throws DetinferError INVALID_REQUEST for more prompts than a request may have. */
export function checkBatchSize(count: number): void {
  if (count > MAX_PROMPTS) {
    throw badValue(`The batch has ${count} prompts; at most ${MAX_PROMPTS} fit into one request.`);
  }
}

const MAX_PROMPTS = 16_384;
const MAX_SEQUENCES = 65_536;
/** Each takes a moment to check, while nothing else is answered. */
const MAX_GRAMMARS = 256;
const MAX_RID_LENGTH = 256;

/** Fields of SGLang that would change the answer and do nothing here. */
const UNSUPPORTED_FIELDS = [
  ...['input_embeds', 'image_data', 'video_data', 'audio_data', 'lora_path', 'lora_id', 'session_params', 'session_id'],
  ...['custom_logit_processor', 'return_hidden_states', 'return_routed_experts', 'token_type_ids', 'bootstrap_host'],
];

/**
 * Checks a body of /generate and fills in the defaults. Fields that nobody knows are passed over, null is a default.
 * @throws DetinferError INVALID_REQUEST (SchemaError for a wrong type) or UNSUPPORTED, and nothing else for any body.
 */
export function readGenerateRequest(body: unknown, limits: ModelLimits): GenerateRequest {
  const fields = bodyFields(body);
  refuseUnsupported(fields);
  const { prompts, isBatch } = readPrompts(fields, limits);
  const sampling = readSampling(fields, prompts.length, isBatch, limits);
  const logprobs = readLogprobs(fields, prompts.length, isBatch, limits);
  const receipts = perPrompt(fields, 'return_receipt', prompts.length, isBatch, boolean, false);
  const rids = readRids(fields, prompts.length, isBatch);
  const sequences = countSequences(sampling);
  return {
    prompts: prompts.map((prompt, i) => ({
      rids: rids[i]!,
      prompt,
      addSpecialTokens: true,
      sampling: sampling[i]!,
      logprobs: logprobs[i]!,
      withReceipt: receipts[i]!,
    })),
    isList: isBatch || sequences > 1,
    stream: fields.get('stream', boolean, false),
  };
}

function refuseUnsupported(fields: Fields): void {
  for (const name of UNSUPPORTED_FIELDS) {
    const value = fields.raw(name);
    const isEmpty = value === undefined || value === false || (Array.isArray(value) && value.length === 0);
    if (!isEmpty) throw new DetinferError('UNSUPPORTED', `${name} is not supported by this version; leave it out.`);
  }
}

function readPrompts(fields: Fields, limits: ModelLimits): { prompts: (string | number[])[]; isBatch: boolean } {
  const hasText = fields.has('text');
  if (hasText === fields.has('input_ids')) {
    throw badValue(`Give ${hasText ? 'only one of' : 'one of'} text and input_ids.`);
  }
  const name = hasText ? 'text' : 'input_ids';
  const value = fields.raw(name);
  if (hasText && !limits.hasTokenizer) {
    throw badValue('text needs a tokenizer, but this server runs without one (--skip-tokenizer-init); send input_ids.');
  }
  if (Array.isArray(value) && value.length === 0) throw badValue(`${name} is an empty list.`);
  const isBatch = Array.isArray(value) && (hasText || value.some(Array.isArray));
  if (isBatch) checkBatchSize(value.length);
  if (hasText) return { prompts: oneOrList(string)(value, name), isBatch };
  const ids = tokenIds(limits.vocabSize);
  const prompts = isBatch ? list(ids)(value, name) : [ids(value, name)];
  const empty = prompts.findIndex((prompt) => prompt.length === 0);
  if (empty >= 0) throw badValue(`${name}[${empty}] is empty; a prompt has at least one token.`);
  return { prompts, isBatch };
}

/** A field that holds one value for all prompts or, in a batch, a list with one per prompt. */
function perPrompt<T>(fields: Fields, name: string, count: number, isBatch: boolean, read: Read<T>, byDefault: T): T[] {
  const value = fields.raw(name);
  if (!isBatch || !Array.isArray(value)) return new Array<T>(count).fill(fields.get(name, read, byDefault));
  checkLength(name, value, count);
  return value.map((item, i) => (item === null ? byDefault : read(item, `${name}[${i}]`)));
}

function checkLength(name: string, value: unknown[], count: number): void {
  if (value.length !== count) throw badValue(`${name} has ${value.length} elements for ${count} prompts.`);
}

function readSampling(fields: Fields, count: number, isBatch: boolean, limits: ModelLimits): SamplingParams[] {
  const read: Read<SamplingParams> = (value, path) => readSamplingParams(value, path, limits);
  const params = perPrompt(fields, 'sampling_params', count, isBatch, read, read({}, 'sampling_params'));
  const grammars = new Set(params.map(({ token }) => token.grammar?.text));
  if (grammars.size > MAX_GRAMMARS) {
    throw badValue(`The request has ${grammars.size} different grammars; at most ${MAX_GRAMMARS} fit into one.`);
  }
  return params;
}

function readLogprobs(fields: Fields, count: number, isBatch: boolean, limits: ModelLimits): (LogprobOptions | null)[] {
  const wanted = perPrompt(fields, 'return_logprob', count, isBatch, boolean, false);
  const starts = perPrompt(fields, 'logprob_start_len', count, isBatch, integer({ min: -1 }), -1);
  const tops = perPrompt(fields, 'top_logprobs_num', count, isBatch, integer({ min: 0, max: limits.vocabSize }), 0);
  const ids = readLogprobIds(fields, count, isBatch, limits);
  const withText = fields.get('return_text_in_logprobs', boolean, false);
  return wanted.map((isWanted, i) =>
    isWanted ? { start: starts[i]!, top: tops[i]!, tokenIds: ids[i]!, withText } : null,
  );
}

/** token_ids_logprob: a list of ids for all prompts, or a list of such lists. */
function readLogprobIds(fields: Fields, count: number, isBatch: boolean, limits: ModelLimits): number[][] {
  const name = 'token_ids_logprob';
  const value = fields.raw(name);
  const ids = tokenIds(limits.vocabSize);
  const isNested = Array.isArray(value) && value.some((item) => Array.isArray(item) || item === null);
  return isNested
    ? perPrompt(fields, name, count, isBatch, ids, [])
    : new Array<number[]>(count).fill(fields.get(name, ids, []));
}

function readRids(fields: Fields, count: number, isBatch: boolean): string[][] {
  const value = fields.raw('rid');
  if (value === undefined) return Array.from({ length: count }, () => [randomUUID().replaceAll('-', '')]);
  if (!Array.isArray(value)) {
    const rid = readRid(value, 'rid');
    return isBatch ? Array.from({ length: count }, (_, i) => [rid, `${rid}_${i}`]) : [[rid]];
  }
  if (!isBatch) throw new SchemaError('rid', 'rid must be a string, for there is one prompt.');
  checkLength('rid', value, count);
  const rids = value.map((item, i) => readRid(item, `rid[${i}]`));
  if (new Set(rids).size !== count) throw badValue('rid holds a name twice; each prompt needs its own.');
  return rids.map((rid) => [rid]);
}

/** The name of a request. */
export const readRid: Read<string> = (value, path) => {
  const rid = string(value, path);
  if (rid.length === 0 || rid.length > MAX_RID_LENGTH) {
    throw badValue(`${path} must have 1 to ${MAX_RID_LENGTH} characters; it has ${rid.length}.`);
  }
  return rid;
};
