import { randomUUID } from 'node:crypto';

import { checkNesting } from '../../grammar/json-schema/compile.js';
import { DetinferError } from '../../protocol/errors.js';
import { badValue, SchemaError } from '../errors.js';
import { boolean, Fields, isObject, type JsonObject, show, string } from '../fields.js';
import { type ModelLimits, samplingParams, type SamplingParams } from '../sampling-params.js';
import { type GenerateRequest, readRid } from '../validate.js';

/** A checked body of an OpenAI endpoint: what to generate, and how to write the answer. */
export interface OpenAIRequest {
  generate: GenerateRequest;
  answer: AnswerOptions;
}

export interface AnswerOptions {
  /** Name of the answer as a whole. */
  id: string;
  /** As the client calls it. */
  model: string;
  /** Copies per prompt. */
  n: number;
  /** Number of most likely tokens that are shown per position; null: no logprobs. */
  topLogprobs: number | null;
  /** What stands before each answer's text: the prompt's own text with `echo`, else null. */
  echo: string[] | null;
  /** A last event of a stream holds the usage. */
  includeUsage: boolean;
  /** Every event of a stream holds the usage so far. */
  continuousUsage: boolean;
}

/** What the readers of requests need to know about the server. */
export interface ServerFacts extends ModelLimits {
  servedModelName: string;
  contextLength: number;
}

/** Our sampling parameters that OpenAI and SGLang's extras call by the same name. */
const SAME_NAME = [
  ...['temperature', 'top_p', 'top_k', 'min_p', 'frequency_penalty', 'presence_penalty', 'repetition_penalty'],
  ...['logit_bias', 'n', 'stop', 'stop_token_ids', 'stop_regex', 'ignore_eos', 'skip_special_tokens', 'no_stop_trim'],
];

/** Sampling parameters with other names there. */
const OTHER_NAMES = { sampling_seed: 'seed', min_new_tokens: 'min_tokens' };

/** Fields of OpenAI or SGLang that would change the answer and do nothing here. */
const UNSUPPORTED = [
  ...['audio', 'custom_logit_processor', 'custom_params', 'function_call', 'functions', 'lora_path', 'lora_id'],
  ...['return_hidden_states', 'return_routed_experts', 'session_params', 'structural_tag', 'web_search_options'],
];

/** Refuses what would be ignored in silence otherwise. Fields that nobody knows are passed over. */
export function refuseUnsupported(fields: Fields, names: readonly string[] = []): void {
  for (const name of [...UNSUPPORTED, ...names]) {
    const value = fields.raw(name);
    const isEmpty = value === undefined || value === false || value === '' || (Array.isArray(value) && !value.length);
    if (!isEmpty) throw new DetinferError('UNSUPPORTED', `${name} is not supported by this version; leave it out.`);
  }
}

/**
 * The sampling parameters, under OpenAI's names and those of SGLang's extras.
 * @throws DetinferError INVALID_REQUEST
 */
export function readSampling(
  fields: Fields,
  maxTokens: { name: string; value: unknown },
  facts: ServerFacts,
): SamplingParams {
  const params: JsonObject = { max_new_tokens: maxTokens.value };
  for (const name of SAME_NAME) params[name] = fields.raw(name);
  for (const [name, alias] of Object.entries(OTHER_NAMES)) params[name] = fields.raw(alias);
  Object.assign(params, readGrammars(fields));
  const given = Object.fromEntries(Object.entries(params).filter(([, value]) => value !== undefined));
  const aliases = { ...OTHER_NAMES, max_new_tokens: maxTokens.name };
  return samplingParams(new Fields(given, '', aliases), facts);
}

/** response_format, and SGLang's extras for the same purpose. */
function readGrammars(fields: Fields): JsonObject {
  const extras = { json_schema: fields.raw('json_schema'), regex: fields.raw('regex'), ebnf: fields.raw('ebnf') };
  const format = fields.raw('response_format');
  if (format === undefined) return extras;
  if (!isObject(format)) throw wrongType('response_format', 'an object', format);
  const schema = readResponseFormat(format);
  if (schema === null) return extras;
  if (extras.json_schema !== undefined) throw badValue('Only one of response_format and json_schema can be set.');
  return { ...extras, json_schema: schema };
}

/** The JSON schema of a response_format as JSON; null where any text will do. */
function readResponseFormat(format: JsonObject): string | null {
  switch (format['type']) {
    case 'text':
      return null;
    case 'json_object':
      return '{"type": "object"}';
    case 'json_schema': {
      const path = 'response_format.json_schema';
      const wrapper = format['json_schema'];
      if (!isObject(wrapper)) throw wrongType(path, 'an object {name, schema}', wrapper ?? null);
      if (!isObject(wrapper['schema'])) throw wrongType(`${path}.schema`, 'an object', wrapper['schema'] ?? null);
      checkNesting(wrapper['schema']);
      return JSON.stringify(wrapper['schema']);
    }
    default:
      throw badValue('response_format.type must be text, json_object or json_schema.');
  }
}

/** The options that both endpoints have. @param prefix of the names of answers. */
export function readAnswerOptions(
  fields: Fields,
  prefix: string,
  facts: ServerFacts,
): Pick<AnswerOptions, 'id' | 'model' | 'includeUsage' | 'continuousUsage'> & Pick<GenerateRequest, 'stream'> & {
  withReceipt: boolean;
} {
  if (!facts.hasTokenizer) {
    throw badValue(
      'The OpenAI endpoints need a tokenizer, but this server runs without one (--skip-tokenizer-init); use /generate.',
    );
  }
  const stream = fields.get('stream', boolean, false);
  const options = fields.raw('stream_options') ?? {};
  if (!isObject(options)) throw new SchemaError('stream_options', 'stream_options must be an object.');
  if (fields.has('stream_options') && !stream) throw badValue('stream_options may only be given with stream: true.');
  const streamOptions = new Fields(options, 'stream_options.');
  return {
    id: fields.get('rid', readRid, `${prefix}-${randomUUID().replaceAll('-', '')}`),
    model: fields.get('model', string, facts.servedModelName),
    stream,
    withReceipt: fields.get('return_receipt', boolean, false),
    includeUsage: streamOptions.get('include_usage', boolean, false),
    continuousUsage: streamOptions.get('continuous_usage_stats', boolean, false),
  };
}

export function wrongType(path: string, expected: string, value: unknown): SchemaError {
  return new SchemaError(path, `${path} must be ${expected}, not ${show(value)}.`);
}
