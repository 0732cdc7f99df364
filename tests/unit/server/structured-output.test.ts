import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { Ajv2020 } from 'ajv/dist/2020.js';
import OpenAI from 'openai';

import { startRealServer, type RealServer } from './real-server.js';

// The demo model, which knows nothing of JSON: what is right about its output is the grammar's doing.

let real: RealServer;
beforeAll(async () => (real = await startRealServer()));
afterAll(() => real.server.stop());

const ajv = new Ajv2020({ strict: false, formats: { date: /^\d{4}-\d\d-\d\d$/ } });
const SCHEMAS = {
  person: {
    type: 'object',
    properties: {
      name: { type: 'string', maxLength: 12 },
      größe: { type: 'number', minimum: 0, exclusiveMaximum: 2.5 },
      mood: { enum: ['😀', 'so so', 'très triste'] },
      tags: { type: 'array', items: { type: 'string', pattern: '^[a-zé]{2,6}$' }, minItems: 1, maxItems: 3 },
    },
    required: ['name', 'größe', 'mood', 'tags'],
    additionalProperties: false,
  },
  tree: {
    $defs: {
      node: {
        type: 'object',
        properties: {
          v: { type: 'integer', minimum: -5, maximum: 20 },
          sub: { type: 'array', items: { $ref: '#/$defs/node' }, maxItems: 2 },
        },
        required: ['v'],
      },
    },
    $ref: '#/$defs/node',
  },
  choice: { anyOf: [{ const: { a: [null] } }, { type: 'string', format: 'date' }, { type: 'integer', minimum: 7 }] },
};
const sampling = (index: number) => ({
  temperature: [0, 0.8, 1.5, 4][index % 4]!,
  sampling_seed: index,
  max_new_tokens: 250,
});

describe.each(Object.entries(SCHEMAS))('json_schema: %s', (_, schema) => {
  test('output that ends is valid JSON', async () => {
    const sampling_params = Array.from({ length: 8 }, (_, i) => ({
      ...sampling(i),
      json_schema: JSON.stringify(schema),
    }));
    const answers = await real.post('/generate', {
      text: sampling_params.map(() => 'Tell me a story.'),
      sampling_params,
    });
    const validate = ajv.compile(schema);
    let ended = 0;
    for (const { text, meta_info: meta } of answers) {
      if (meta.finish_reason.type !== 'stop') continue;
      ended += 1;
      expect({ text, errors: validate(JSON.parse(text)) || validate.errors }).toEqual({ text, errors: true });
    }
    expect(ended).toBeGreaterThan(3);
  });
});

test('regex and ebnf', async () => {
  const grammars = [
    { regex: '(one|two|three)( [a-z]{2,8}){2}\\.' },
    { regex: '\\p{Lu}{2}-[😀-😎é]{1,3}' },
    { ebnf: 'root ::= "[" item ("," item)* "]"\nitem ::= [0-9]{1,3} | root' },
  ];
  const sampling_params = Array.from({ length: 12 }, (_, i) => ({
    ...sampling(i),
    ...grammars[i % 3],
    max_new_tokens: 120,
  }));
  const answers = await real.post('/generate', { text: sampling_params.map(() => 'Tell me'), sampling_params });
  const patterns = [/^(one|two|three)( [a-z]{2,8}){2}\.$/, /^\p{Lu}{2}-[😀-😎é]{1,3}$/u, /^[[\]0-9,]+$/];
  for (const [i, { text, meta_info: meta }] of answers.entries()) {
    if (meta.finish_reason.type === 'length' && i % 3 === 2) continue;
    expect(text).toMatch(patterns[i % 3]!);
    if (i % 3 === 2) expect(Array.isArray(JSON.parse(text.replace(/\b0+(?=\d)/g, '')))).toBe(true);
  }
});

test('the bits are the same alone, in a batch, streamed and with another grammar beside', async () => {
  const json_schema = JSON.stringify(SCHEMAS.person);
  const params = { temperature: 1.2, sampling_seed: 3, max_new_tokens: 80, json_schema };
  const ask = (body: object) => real.post('/generate', { return_logprob: true, ...body });
  const alone = await ask({ text: 'Who is Anna?', sampling_params: params });
  const others = [{ ...params, sampling_seed: 4 }, { regex: '[a-z ]+\\.', max_new_tokens: 50 }, { max_new_tokens: 30 }];
  const batch = await ask({
    text: ['Who is Anna?', 'Who is Anna?', 'Once', 'Hello'],
    sampling_params: [params, ...others],
  });
  expect(batch[0].output_ids).toEqual(alone.output_ids);
  expect(batch[0].meta_info.output_token_logprobs).toEqual(alone.meta_info.output_token_logprobs);
  expect(batch[1].output_ids).not.toEqual(alone.output_ids);
});

test('reported log-probabilities are those without the grammar', async () => {
  const body = { text: 'Tell me a joke', return_logprob: true, token_ids_logprob: [5, 1000] };
  const [free, bound] = await Promise.all(
    [{}, { regex: '[0-9]+' }].map((grammar) =>
      real.post('/generate', { ...body, sampling_params: { temperature: 0, max_new_tokens: 1, ...grammar } }),
    ),
  );
  expect(bound.text).toMatch(/^\d+$/);
  expect(bound.meta_info.output_token_ids_logprobs).toEqual(free.meta_info.output_token_ids_logprobs);
  const scored = await real.post('/generate', {
    ...body,
    token_ids_logprob: bound.output_ids,
    sampling_params: { temperature: 0, max_new_tokens: 1 },
  });
  expect(bound.meta_info.output_token_logprobs[0][0]).toBe(scored.meta_info.output_token_ids_logprobs[0][0][0]);
});

test('min_new_tokens ends no text early, and a complete text all the same', async () => {
  const generate = async (params: object) =>
    (
      await real.post('/generate', {
        text: 'Tell me',
        sampling_params: { temperature: 0, max_new_tokens: 40, ...params },
      })
    ).text;
  expect((await generate({ regex: '[a-z]{1,60}', min_new_tokens: 20 })).length).toBeGreaterThanOrEqual(20);
  expect(await generate({ regex: 'yes|no', min_new_tokens: 20 })).toMatch(/^(yes|no)$/);
});

describe('OpenAI', () => {
  const model = 'models/demo';
  const messages: OpenAI.ChatCompletionMessageParam[] = [{ role: 'user', content: 'Who are you?' }];

  test('response_format json_schema, streamed too', async () => {
    const body = {
      model,
      messages,
      seed: 5,
      max_tokens: 250,
      response_format: {
        type: 'json_schema' as const,
        json_schema: { name: 'person', schema: SCHEMAS.person, strict: true },
      },
    };
    const whole = await real.client.chat.completions.create(body);
    expect(whole.choices[0]!.finish_reason).toBe('stop');
    const text = whole.choices[0]!.message.content!;
    expect(ajv.compile(SCHEMAS.person)(JSON.parse(text))).toBe(true);
    let streamed = '';
    for await (const chunk of await real.client.chat.completions.create({ ...body, stream: true })) {
      streamed += chunk.choices[0]?.delta.content ?? '';
    }
    expect(streamed).toBe(text);
  });

  test('response_format json_object', async () => {
    const { choices } = await real.client.chat.completions.create({
      model,
      messages,
      temperature: 0,
      max_tokens: 200,
      response_format: { type: 'json_object' },
    });
    expect(choices[0]!.message.content).toMatch(/^\{/);
    if (choices[0]!.finish_reason === 'stop') expect(JSON.parse(choices[0]!.message.content!)).toBeInstanceOf(Object);
  });

  test('the extras regex and ebnf', async () => {
    const regex = await real.client.completions.create({ model, prompt: 'Pick', ...{ regex: '(red|blue)!' } });
    expect(regex.choices[0]!.text).toMatch(/^(red|blue)!$/);
    const ebnf = await real.client.chat.completions.create({
      model,
      messages,
      ...{ ebnf: 'root ::= "ä" | "ö" | "ü"' },
    });
    expect('äöü').toContain(ebnf.choices[0]!.message.content);
  });
});

describe('is refused before anything runs', () => {
  test.each<[object, string, RegExp]>([
    [{ regex: '(' }, 'INVALID_REQUEST', /a group without an end/],
    [{ ebnf: 'root ::= root "a" | "b"' }, 'UNSUPPORTED', /begins with itself/],
    [{ json_schema: '{' }, 'INVALID_REQUEST', /is no JSON/],
    [{ json_schema: '{"type": "array", "uniqueItems": true}' }, 'UNSUPPORTED', /uniqueItems at #/],
    [{ regex: 'a', ebnf: 'root ::= "a"' }, 'INVALID_REQUEST', /Only one of json_schema, regex and ebnf/],
    [{ regex: 'a', ignore_eos: true }, 'INVALID_REQUEST', /needs a token that ends the output/],
  ])('%j', async (sampling_params, code, message) => {
    const { error } = await real.post('/generate', { text: 'a', sampling_params });
    expect(error).toEqual({ code, message: expect.stringMatching(message) });
  });

  test.each<[object, RegExp]>([
    [{ response_format: { type: 'xml' } }, /response_format.type must be text, json_object or json_schema/],
    [{ response_format: { type: 'json_schema' } }, /response_format.json_schema must be an object \{name, schema\}/],
    [{ response_format: { type: 'json_object' }, regex: 'a' }, /Only one of json_schema, regex and ebnf/],
    [{ response_format: { type: 'json_schema', json_schema: { name: 'x', schema: { not: {} } } } }, /keyword not at #/],
  ])('%j', async (extra, message) => {
    const { error } = await real.post('/v1/chat/completions', { messages: [{ role: 'user', content: 'a' }], ...extra });
    expect(error.message).toMatch(message);
  });
});
