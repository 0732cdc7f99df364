import fc from 'fast-check';

/** Numbers at and beyond the limits of fields. */
const number = fc.constantFrom(
  ...[-1, 0, 1, 2, 3, -2, 0.5, 1.5, -0.0001, 1e-9, 1e9, 4095, 4096, 65_537, 2 ** 31, 2 ** 32, 2 ** 53, 1e308, -1e308],
  // What a 32-bit float rounds to 0, holds as a denormal, or cannot tell from 1 or from infinity.
  ...[5e-324, -5e-324, 1e-45, 1e-40, 1 - 1e-16, 1 + 1e-15, 3.4e38, 1e30],
);

/** Text of every kind: lone surrogates, control and combining characters, special tokens, long runs. */
const text = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 30 }),
  fc.string({ unit: 'grapheme', maxLength: 30 }),
  fc.constantFrom('', '\ud800', '\udfff\ud800', '\u0000', '\ufeff', '<|im_end|>', '<|endoftext|>', 'a'.repeat(5000), '🦊'.repeat(300)),
  fc.constantFrom('(', '[a', '(a|a)*$', '\\', '(?=x)', '{', 'a{1,1000}', '(((((', '(?P<x>.)', '.*'.repeat(50)),
);

/** Lists and objects in one another, up to far deeper than anybody needs. */
const deep = fc.tuple(fc.constantFrom(1, 10, 1000), fc.boolean()).map(([depth, isList]) => {
  let value: unknown = null;
  for (let i = 0; i < depth; i++) value = isList ? [value] : { a: value };
  return value;
});

const anything = fc.oneof(
  { weight: 4, arbitrary: number },
  { weight: 3, arbitrary: text },
  { weight: 2, arbitrary: fc.constantFrom(null, true, false, [], {}, [[]], [null], [{}], '1', '[]') },
  { weight: 2, arbitrary: fc.array(fc.oneof(number, text, fc.constant(null), fc.array(number, { maxLength: 4 })), { maxLength: 5 }) },
  { weight: 2, arbitrary: fc.jsonValue({ maxDepth: 3 }) },
  { weight: 1, arbitrary: deep },
);

const SAMPLING = [
  ...['max_new_tokens', 'min_new_tokens', 'temperature', 'top_p', 'top_k', 'min_p', 'frequency_penalty', 'presence_penalty'],
  ...['repetition_penalty', 'logit_bias', 'stop', 'stop_regex', 'stop_token_ids', 'ignore_eos', 'no_stop_trim', 'n'],
  ...['skip_special_tokens', 'spaces_between_special_tokens', 'sampling_seed', 'json_schema', 'regex', 'ebnf', '__proto__', 'x'],
];
const FIELDS = [
  ...['text', 'input_ids', 'sampling_params', 'rid', 'return_logprob', 'return_receipt', 'logprob_start_len', 'top_logprobs_num', 'stream'],
  ...['token_ids_logprob', 'return_text_in_logprobs', 'lora_path', 'image_data', '__proto__', 'constructor', 'unknown'],
];

/** Some of the named fields, each with anything. */
function some(names: string[], most: number): fc.Arbitrary<[string, unknown][]> {
  return fc.array(fc.tuple(fc.constantFrom(...names), anything), { maxLength: most });
}

/** An object with these entries, "__proto__" included, as JSON.parse would make it. */
function toObject(entries: [string, unknown][]): object {
  const object = {};
  for (const [key, value] of entries) Object.defineProperty(object, key, { value, enumerable: true, configurable: true, writable: true });
  return object;
}

/** A body of /generate that is right but for some fields. */
export const generateBody: fc.Arbitrary<unknown> = fc
  .tuple(fc.constantFrom('text', 'input_ids'), some(SAMPLING, 3), some(FIELDS, 2))
  .map(([kind, sampling, fields]) =>
    toObject([
      [kind, kind === 'text' ? 'a fox' : [1, 2, 3]],
      ['sampling_params', toObject([['max_new_tokens', 1], ...sampling])],
      ...fields,
    ]),
  );

const OTHERS: [string, string[]][] = [
  ['/tokenize', ['prompt', 'text', 'add_special_tokens']],
  ['/v1/tokenize', ['prompt', 'text', 'add_special_tokens']],
  ['/detokenize', ['tokens', 'skip_special_tokens']],
  ['/v1/detokenize', ['tokens', 'skip_special_tokens']],
  ['/abort_request', ['rid', 'abort_all']],
];

/** Messages of a chat, most of them wrong somewhere. */
const messages = fc.array(
  fc
    .tuple(fc.constantFrom('system', 'user', 'assistant', 'tool', 'x'), some(['role', 'content', 'tool_calls', 'name', '__proto__'], 2))
    .map(([role, entries]) => toObject([['role', role], ['content', 'a fox'], ...entries])),
  { maxLength: 4 },
);
const tool = fc.constantFrom('auto', 'none', 'required').map((choice) => [
  ['tool_choice', choice],
  ['tools', [{ type: 'function', function: { name: 'f', parameters: { type: 'object' } } }]],
] as [string, unknown][]);
const OPENAI = [
  ...['max_tokens', 'min_tokens', 'temperature', 'top_p', 'top_k', 'min_p', 'frequency_penalty', 'presence_penalty'],
  ...['repetition_penalty', 'logit_bias', 'stop', 'stop_token_ids', 'stop_regex', 'n', 'best_of', 'seed', 'logprobs', 'top_logprobs'],
  ...['echo', 'stream', 'stream_options', 'model', 'rid', 'return_receipt', 'response_format', 'json_schema', 'regex', 'ebnf'],
  ...['suffix', 'user', 'ignore_eos', '__proto__', 'x'],
];
const CHAT = ['max_completion_tokens', 'tools', 'tool_choice', 'modalities', 'continue_final_message', 'chat_template_kwargs', 'messages'];

const completionBody = some([...OPENAI, 'prompt'], 3).map((entries) => toObject([['prompt', 'a fox'], ['max_tokens', 1], ...entries]));
const chatBody = fc
  .tuple(messages, fc.oneof(fc.constant([]), tool), some([...OPENAI, ...CHAT], 3))
  .map(([messages, tools, entries]) => toObject([['messages', messages], ['max_tokens', 1], ...tools, ...entries]));

/** A body for OpenAI's endpoints that is right but for some fields. */
export const openaiRequest: fc.Arbitrary<{ path: string; body: unknown }> = fc.oneof(
  completionBody.map((body) => ({ path: '/v1/completions', body })),
  chatBody.map((body) => ({ path: '/v1/chat/completions', body })),
);

/** A body for a trainer's endpoints. None of them is right enough for new weights; generation may be paused after it. */
export const trainingRequest: fc.Arbitrary<{ path: string; body: unknown }> = fc.oneof(
  fc.oneof(some(['mode', 'x'], 2).map(toObject), anything).map((body) => ({ path: '/pause_generation', body })),
  fc
    .oneof(some(['model_path', 'flush_cache', 'abort_all_requests', 'weight_version', '__proto__'], 3).map(toObject), anything)
    .map((body) => ({ path: '/update_weights_from_disk', body })),
  fc
    .tuple(fc.constantFrom('/release_memory_occupation', '/resume_memory_occupation'), anything.filter((tags) => !isEmpty(tags)))
    .map(([path, tags]) => ({ path, body: { tags } })),
);

/** Whether a list of tags means all of them. */
function isEmpty(tags: unknown): boolean {
  return tags === null || (Array.isArray(tags) && tags.length === 0);
}

/** A body for one of the other endpoints. */
export const otherRequest: fc.Arbitrary<{ path: string; body: unknown }> = fc
  .constantFrom(...OTHERS)
  .chain(([path, names]) => some(names, 3).map((entries) => ({ path, body: toObject(entries) })));

/** Bytes that are no JSON any more, or never were, under content types right and wrong. */
export const rawRequest: fc.Arbitrary<{ path: string; method: 'POST' | 'PUT' | 'GET' | 'DELETE' | 'PATCH'; type: string; body: Buffer }> = fc
  .record({
    path: fc.oneof(
      fc.constantFrom('/generate', '/tokenize', '/abort_request', '/flush_cache?timeout=x', '/%', '/%00', '/..%2f', '//generate'),
      fc.string({ unit: fc.constantFrom(...'abc/%?&=.;~0'), maxLength: 20 }).map((tail) => `/${tail}`),
    ),
    method: fc.constantFrom('POST', 'POST', 'POST', 'PUT', 'GET', 'DELETE', 'PATCH'),
    type: fc.constantFrom('application/json', 'application/json', 'application/json', 'text/plain', 'multipart/form-data', 'x', 'a/b; charset=\xff'),
    bytes: fc.oneof(
      fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes)),
      fc.uint8Array({ maxLength: 400 }).map((bytes) => Buffer.from(`{"text":"${Buffer.from(bytes).toString('latin1')}"}`, 'latin1')),
      fc.tuple(generateBody, fc.nat()).map(([body, cut]) => {
        const json = Buffer.from(JSON.stringify(body));
        return json.subarray(0, cut % (json.length + 1));
      }),
      fc.constantFrom('[', '{"a":').chain((open) => fc.constantFrom(10, 20, 50, 1000, 2000, 5000, 100_000, 1_100_000).map((depth) => Buffer.from(open.repeat(depth)))),
      fc.constantFrom('{}', '[]', 'null', '0', '""', '{"text":"a","text":1}', '{"text":1e999}', 'NaN').map((json) => Buffer.from(json)),
    ),
  })
  .map(({ bytes, ...rest }) => ({ ...rest, body: bytes }));
