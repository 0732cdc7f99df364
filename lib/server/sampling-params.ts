import { DetinferError } from '../protocol/errors.js';
import { type GrammarSpec, GREEDY_TEMPERATURE, type TokenSampling } from '../protocol/sampling.js';
import { badValue, SchemaError } from './errors.js';
import {
  boolean,
  Fields,
  integer,
  isObject,
  number,
  oneOrList,
  type Read,
  show,
  string,
  tokenId,
  tokenIds,
} from './fields.js';
import { compileStopRegex, type StopRegex } from './stop-regex.js';

/** sampling_params with every default filled in. */
export interface SamplingParams {
  token: Omit<TokenSampling, 'seed'>;
  /** null: the server chooses one. */
  seed: number | null;
  maxNewTokens: number;
  minNewTokens: number;
  stopTokenIds: number[];
  stopStrings: string[];
  stopRegexes: StopRegex[];
  ignoreEos: boolean;
  skipSpecialTokens: boolean;
  noStopTrim: boolean;
  n: number;
}

/** What a request is checked against. */
export interface ModelLimits {
  vocabSize: number;
  hasTokenizer: boolean;
}

const MAX_COPIES = 4096;
const MAX_STOP_STRINGS = 256;
const MAX_STOP_REGEXES = 16;
/** Far above any use, and f32 holds it even after division by the smallest temperature. */
const MAX_MAGNITUDE = 1e30;

/** Ways to ask for output of a certain form. */
const GRAMMARS = ['json_schema', 'regex', 'ebnf'] as const;
const UNSUPPORTED = ['structural_tag', 'custom_params'];

const KNOWN = new Set([
  ...[
    'max_new_tokens',
    'min_new_tokens',
    'stop',
    'stop_token_ids',
    'stop_regex',
    'temperature',
    'top_p',
    'top_k',
    'min_p',
  ],
  ...['frequency_penalty', 'presence_penalty', 'repetition_penalty', 'n', 'ignore_eos', 'skip_special_tokens'],
  ...['spaces_between_special_tokens', 'no_stop_trim', 'logit_bias', 'sampling_seed', ...GRAMMARS, ...UNSUPPORTED],
]);

const PENALTY = number({ min: -2, max: 2 });

/**
 * Reads one sampling_params object.
 * @throws DetinferError INVALID_REQUEST (SchemaError for a wrong type) or UNSUPPORTED.
 */
export function readSamplingParams(value: unknown, path: string, limits: ModelLimits): SamplingParams {
  if (!isObject(value)) throw new SchemaError(path, `${path} must be an object, not ${show(value)}.`);
  const fields = new Fields(value, `${path}.`);
  refuseUnknown(fields);
  return samplingParams(fields, limits);
}

/** Reads sampling parameters wherever they stand, under the names of sampling_params. @throws as readSamplingParams. */
export function samplingParams(fields: Fields, limits: ModelLimits): SamplingParams {
  refuseUnsupported(fields);
  const temperature = fields.get('temperature', number({ min: 0, max: MAX_MAGNITUDE }), 1);
  const maxNewTokens = fields.get('max_new_tokens', integer({ min: 0 }), 128);
  const minNewTokens = fields.get('min_new_tokens', integer({ min: 0 }), 0);
  if (minNewTokens > maxNewTokens) {
    const max = fields.alias('max_new_tokens');
    throw badValue(`${fields.path('min_new_tokens')} (${minNewTokens}) must not exceed ${max} (${maxNewTokens}).`);
  }
  // SGLang's fast tokenizers ignore spaces_between_special_tokens, and so does this one: it is only checked.
  fields.get('spaces_between_special_tokens', boolean, true);
  const params: SamplingParams = {
    token: {
      temperature: temperature < GREEDY_TEMPERATURE ? 0 : temperature,
      topK: Math.min(fields.get('top_k', integer({ min: 1, or: -1 }), -1), limits.vocabSize),
      topP: fields.get('top_p', number({ min: 0, max: 1, exclusive: true }), 1),
      minP: fields.get('min_p', number({ min: 0, max: 1 }), 0),
      frequencyPenalty: fields.get('frequency_penalty', PENALTY, 0),
      presencePenalty: fields.get('presence_penalty', PENALTY, 0),
      repetitionPenalty: fields.get('repetition_penalty', repetitionPenalty, 1),
      logitBias: fields.get('logit_bias', logitBias(limits.vocabSize), []),
      grammar: readGrammar(fields, limits),
    },
    seed: fields.get<number | null>('sampling_seed', integer(), null),
    maxNewTokens,
    minNewTokens,
    stopTokenIds: fields.get('stop_token_ids', tokenIds(limits.vocabSize), []),
    stopStrings: fields.get('stop', stopStrings, []),
    stopRegexes: fields.get('stop_regex', stopRegexes, []),
    ignoreEos: fields.get('ignore_eos', boolean, false),
    skipSpecialTokens: fields.get('skip_special_tokens', boolean, true),
    noStopTrim: fields.get('no_stop_trim', boolean, false),
    n: fields.get('n', integer({ min: 1, max: MAX_COPIES }), 1),
  };
  if (params.seed !== null && params.seed > Number.MAX_SAFE_INTEGER - (params.n - 1)) {
    const seed = fields.alias('sampling_seed');
    throw badValue(`${fields.path('sampling_seed')} + n - 1 must not exceed 2^53 - 1, for copy i uses ${seed} + i.`);
  }
  if (!limits.hasTokenizer && (params.stopStrings.length > 0 || params.stopRegexes.length > 0)) {
    throw badValue(
      `${fields.path('stop')} and stop_regex need a tokenizer, but this server runs without one (--skip-tokenizer-init); ` +
        'use stop_token_ids.',
    );
  }
  return params;
}

/** SGLang refuses them too: to ignore a misspelt parameter would change the answer in silence. */
function refuseUnknown(fields: Fields): void {
  const unknown = fields.names.find((name) => !KNOWN.has(name));
  if (unknown === undefined) return;
  const known = [...KNOWN].sort().join(', ');
  throw badValue(`${fields.path('')}${show(unknown).slice(1, -1)} is no sampling parameter. There are: ${known}.`);
}

function refuseUnsupported(fields: Fields): void {
  const name = UNSUPPORTED.find((name) => fields.has(name));
  if (name === undefined) return;
  throw new DetinferError('UNSUPPORTED', `${fields.path(name)} is not supported by this version; leave it out.`);
}

/** Logits are divided by it, as an f32. */
const repetitionPenalty: Read<number> = (value, path) => {
  const penalty = number({ min: 0, max: 2, exclusive: true })(value, path);
  if (Math.fround(penalty) === 0) throw badValue(`${path} is ${penalty}, which a 32-bit float cannot tell from 0.`);
  return penalty;
};

/** json_schema, regex or ebnf: what it means is looked at before the request runs. */
function readGrammar(fields: Fields, limits: ModelLimits): GrammarSpec | null {
  const given = GRAMMARS.filter((name) => fields.has(name));
  const [kind] = given;
  if (kind === undefined) return null;
  if (given.length > 1) {
    const paths = given.map((name) => fields.path(name)).join(', ');
    throw badValue(`Only one of json_schema, regex and ebnf can be set; these are: ${paths}.`);
  }
  if (!limits.hasTokenizer) {
    throw badValue(`${fields.path(kind)} needs a tokenizer, but this server runs without one (--skip-tokenizer-init).`);
  }
  return { kind, text: fields.get(kind, string, '') };
}

const stopStrings: Read<string[]> = (value, path) => {
  const strings = oneOrList(string)(value, path);
  if (strings.includes('')) throw badValue(`${path} must not hold an empty string.`);
  if (strings.length > MAX_STOP_STRINGS) throw badValue(`${path} must not hold more than ${MAX_STOP_STRINGS} strings.`);
  return strings;
};

const stopRegexes: Read<StopRegex[]> = (value, path) => {
  const patterns = oneOrList(string)(value, path);
  if (patterns.length > MAX_STOP_REGEXES)
    throw badValue(`${path} must not hold more than ${MAX_STOP_REGEXES} patterns.`);
  return patterns.map(compileStopRegex);
};

/** An object from token ids, which JSON writes as strings, to biases. */
function logitBias(vocabSize: number): Read<[tokenId: number, bias: number][]> {
  const bias = number({ min: -MAX_MAGNITUDE, max: MAX_MAGNITUDE });
  return (value, path) => {
    if (!isObject(value))
      throw new SchemaError(path, `${path} must be an object from token ids to numbers, not ${show(value)}.`);
    return Object.entries(value).map(([key, entry]) => {
      const keyPath = `${path}.${show(key).slice(1, -1)}`;
      const id = tokenId(vocabSize)(/^\d{1,15}$/.test(key) ? Number(key) : key, keyPath);
      return [id, bias(entry, keyPath)];
    });
  };
}
