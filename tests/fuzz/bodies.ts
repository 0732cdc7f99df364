import fc from 'fast-check';

/** Numbers at and beyond the limits of fields. */
const number = fc.constantFrom(
  ...[-1, 0, 1, 2, 3, -2, 0.5, 1.5, -0.0001, 1e-9, 1e9, 4095, 4096, 65_537, 2 ** 31, 2 ** 32, 2 ** 53, 1e308, -1e308],
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
