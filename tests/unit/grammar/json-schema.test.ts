import { describe, expect, test } from '@jest/globals';
import { Ajv2020 } from 'ajv/dist/2020.js';
import fc from 'fast-check';

import { accepts, machineFor, randomFrom, randomText } from './walk.js';

const DATE = /^\d{4}-\d\d-\d\d$/;
const isDate = (text: string) => DATE.test(text) && new Date(`${text}T00:00:00Z`).toISOString().startsWith(text);
const ajv = new Ajv2020({
  strict: false,
  formats: {
    date: isDate,
    'date-time': (text: string) => isDate(text.slice(0, 10)) && !Number.isNaN(Date.parse(text)),
    time: (text: string) => !Number.isNaN(Date.parse(`2000-01-01T${text}`)),
    uuid: /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i,
    ipv4: (text: string) =>
      text.split('.').length === 4 &&
      text.split('.').every((part) => String(Number(part)) === part && Number(part) < 256),
    email: /^[^@\s]+@[^@\s]+\.[^@\s.]+$/,
  },
});

const name = fc.constantFrom('a', 'ab', 'b', 'key', 'größe', '名', '😀', 'with "quotes"', 'sp ace', '');
const constant = fc.oneof(
  fc.constantFrom<unknown>(null, true, 0, -1.5, 'x', 'ä\n"', '', [1, 'a'], { a: [null] }),
  fc.integer(),
);
const limits = fc.tuple(
  fc.integer({ min: -300, max: 300 }),
  fc.integer({ min: 0, max: 500 }),
  fc.constantFrom(1, 4, 10, 100),
);
const leaf = fc.oneof(
  fc.constantFrom<object>(
    {},
    { type: 'string' },
    { type: 'integer' },
    { type: 'number' },
    { type: ['boolean', 'null'] },
  ),
  fc
    .tuple(fc.nat(3), fc.nat(4))
    .map(([minLength, more]) => ({ type: 'string', minLength, maxLength: minLength + more })),
  fc
    .constantFrom('^[a-c]+$', '"', '^\\p{L}{1,3}$', 'x|^yy', '[\\n\\t]', '^[^"]{2}$')
    .map((pattern) => ({ type: 'string', pattern })),
  fc.constantFrom('date', 'date-time', 'time', 'uuid', 'ipv4', 'email').map((format) => ({ type: 'string', format })),
  fc.uniqueArray(constant, { minLength: 1, maxLength: 4 }).map((values) => ({ enum: values })),
  constant.map((value) => ({ const: value })),
  limits.map(([low, more, unit]) => ({ type: 'number', minimum: low / unit, maximum: (low + more) / unit })),
  limits.map(([low, more, unit]) => ({
    type: 'number',
    exclusiveMinimum: low / unit,
    exclusiveMaximum: (low + more + 1) / unit,
  })),
  limits.map(([low, more]) => ({ type: 'integer', minimum: low, maximum: low + more })),
  limits.map(([low, , unit]) => ({ type: 'integer', exclusiveMinimum: low / unit })),
  limits.map(([high, , unit]) => ({ type: 'number', maximum: high / unit })),
);
const schemas = fc.letrec<{ schema: object; branch: object }>((tie) => ({
  schema: fc.oneof({ maxDepth: 3, withCrossShrink: true }, leaf, leaf, tie('branch')),
  branch: fc.oneof(
    fc
      .tuple(
        fc.dictionary(name, tie('schema'), { maxKeys: 4 }),
        fc.array(name, { maxLength: 3 }),
        fc.constantFrom<unknown>(undefined, true, false, { type: 'integer' }),
      )
      .map(([properties, required, additionalProperties]) => ({
        type: 'object',
        properties,
        // A name that is required and neither declared nor allowed would leave nothing.
        required: [...new Set(required)].filter(
          (key) => additionalProperties !== false || Object.hasOwn(properties, key),
        ),
        ...(additionalProperties !== undefined && { additionalProperties }),
      })),
    fc
      .tuple(tie('schema'), fc.nat(2), fc.nat(2))
      .map(([items, minItems, more]) => ({ type: 'array', items, minItems, maxItems: minItems + more })),
    fc
      .tuple(fc.array(tie('schema'), { minLength: 1, maxLength: 3 }), fc.nat(4))
      .map(([prefixItems, minItems]) => ({ type: 'array', prefixItems, minItems, maxItems: 4 })),
    fc.array(tie('schema'), { minLength: 1, maxLength: 3 }).map((anyOf) => ({ anyOf })),
    tie('schema').map((additionalProperties) => ({ type: 'object', additionalProperties, minProperties: 1 })),
    fc
      .tuple(tie('schema'), fc.boolean())
      .map(([schema, all]) => ({ title: 'x', description: 'y', ...(all ? { allOf: [schema] } : schema) })),
    tie('schema').map((schema) => ({
      type: 'object',
      properties: { value: schema, next: { anyOf: [{ $ref: '#' }, { type: 'null' }] } },
      required: ['value', 'next'],
    })),
  ),
})).schema;

test('every text of a schema is JSON and valid', () => {
  let lengths = 0;
  fc.assert(
    fc.property(schemas, fc.integer(), (schema, seed) => {
      const machine = machineFor('json_schema', schema);
      const validate = ajv.compile(schema);
      const random = randomFrom(seed);
      for (let i = 0; i < 3; ++i) {
        const text = randomText(machine, random);
        lengths += text.length;
        expect({ text, errors: validate(JSON.parse(text)) || validate.errors }).toEqual({ text, errors: true });
      }
    }),
    { numRuns: 100 },
  );
  expect(lengths).toBeGreaterThan(2_000);
});

test('any JSON is a text of the schema that asks for nothing', () => {
  const machine = machineFor('json_schema', '{}');
  fc.assert(
    fc.property(fc.jsonValue({ depthSize: 'medium', stringUnit: 'binary' }), (value) => {
      const text = JSON.stringify(value);
      // Numbers have 15 digits at most, and exponents two.
      const isInReach = !/\d{16}|e[+-]?\d{3}/.test(text);
      if (isInReach) expect([text, accepts(machine, text)]).toEqual([text, true]);
    }),
  );
});

describe('the range of numbers', () => {
  const decimal = fc
    .tuple(
      fc.constantFrom('', '-'),
      fc.integer({ min: 0, max: 130 }),
      fc.constantFrom('', '.0', '.5', '.25', '.049', '.05', '.051', '.999', '.50'),
    )
    .map((parts) => parts.join(''));
  const range = fc.record(
    {
      minimum: fc.integer({ min: -200, max: 200 }).map((x) => x / 20),
      maximum: fc.integer({ min: -200, max: 2500 }).map((x) => x / 20),
      exclusiveMinimum: fc.integer({ min: -200, max: 200 }).map((x) => x / 20),
      exclusiveMaximum: fc.integer({ min: -200, max: 2500 }).map((x) => x / 20),
    },
    { requiredKeys: [] },
  );

  test.each(['number', 'integer'])('is exact: %s', (type) => {
    let inside = 0;
    fc.assert(
      fc.property(range, fc.array(decimal, { minLength: 20, maxLength: 20 }), (limits, texts) => {
        const schema = { type, ...limits };
        const validate = ajv.compile(schema);
        let machine;
        try {
          machine = machineFor('json_schema', schema);
        } catch (error) {
          expect((error as Error).message).toMatch(/matches no text/);
        }
        for (const text of texts) {
          // A zero has no sign here, and an integer no fraction.
          if (Object.is(Number(text), -0)) continue;
          const isExpected = validate(Number(text)) && (type === 'number' || !text.includes('.'));
          inside += Number(isExpected);
          expect([schema, text, machine !== undefined && accepts(machine, text)]).toEqual([schema, text, isExpected]);
        }
      }),
      { numRuns: 150 },
    );
    expect(inside).toBeGreaterThan(20);
  });
});

describe('objects', () => {
  const texts = (schema: object, candidates: string[]): string[] => {
    const machine = machineFor('json_schema', schema);
    return candidates.filter((text) => accepts(machine, text));
  };

  test('have declared properties in order, then others', () => {
    const schema = {
      type: 'object',
      properties: { a: { type: 'null' }, b: { type: 'null' } },
      required: ['b'],
      additionalProperties: { type: 'integer' },
    };
    const good = ['{"b":null}', '{"a":null,"b":null}', '{"b":null,"c":1,"ab":2}', '{\n  "a": null,\n  "b": null\n}'];
    const bad = [
      '{}',
      '{"b":null,"a":null}',
      '{"b":null,"a":1}',
      '{"b":null,"c":null}',
      '{"b":null,}',
      '{"b":null,"\\u0061":1}',
    ];
    expect(texts(schema, [...good, ...bad])).toEqual(good);
  });

  test('have only declared properties unless told', () => {
    expect(texts({ properties: { a: {} } }, ['{}', '{"a":1}', '{"b":1}', '1'])).toEqual(['{}', '{"a":1}']);
    expect(texts({ type: 'object' }, ['{"b":[{}]}', '[]'])).toEqual(['{"b":[{}]}']);
  });

  test('of several schemas have what all of them ask for', () => {
    const base = {
      type: 'object',
      properties: { kind: { type: 'string' }, n: { type: 'integer', minimum: 3 } },
      required: ['kind'],
    };
    const schema = {
      $defs: { base },
      allOf: [{ $ref: '#/$defs/base' }],
      properties: { kind: { const: 'x' }, n: { maximum: 5 } },
    };
    const good = ['{"kind":"x"}', '{"kind":"x","n":4}'];
    expect(texts(schema, [...good, '{}', '{"kind":"y"}', '{"kind":"x","n":2}', '{"kind":"x","n":6}'])).toEqual(good);
  });

  test('may be told apart by a constant in oneOf', () => {
    const shape = (kind: string, type: string) => ({
      type: 'object',
      properties: { kind: { const: kind }, v: { type } },
      required: ['kind', 'v'],
    });
    const schema = {
      $defs: { b: shape('b', 'string') },
      oneOf: [shape('a', 'null'), { $ref: '#/$defs/b' }, { type: 'null' }],
    };
    const good = ['{"kind":"a","v":null}', '{"kind":"b","v":"x"}', 'null'];
    expect(texts(schema, [...good, '{"kind":"a","v":"x"}'])).toEqual(good);
  });
});

describe('is refused', () => {
  test.each<[string | object, string, RegExp]>([
    ['{', 'INVALID_REQUEST', /is no JSON/],
    ['[]', 'INVALID_REQUEST', /must have an object, true or false at #/],
    [false as never, 'INVALID_REQUEST', /matches no text at all/],
    [{ type: 'float' }, 'INVALID_REQUEST', /type at # must be one or more of/],
    [{ type: 'object', properties: [] }, 'INVALID_REQUEST', /properties at # must be an object/],
    [{ items: 3 }, 'INVALID_REQUEST', /at #\/items/],
    [{ $ref: '#/$defs/x' }, 'INVALID_REQUEST', /names nothing/],
    [{ $ref: 'http://example.com/x' }, 'UNSUPPORTED', /only references within the schema/],
    [{ $ref: '#' }, 'INVALID_REQUEST', /matches no text at all/],
    [
      { type: 'object', properties: { a: { $ref: '#' } }, required: ['a'] },
      'INVALID_REQUEST',
      /matches no text at all/,
    ],
    [{ type: 'string', minLength: -1 }, 'INVALID_REQUEST', /whole number/],
    [{ type: 'string', pattern: '(' }, 'INVALID_REQUEST', /group without an end/],
    [{ type: 'string', pattern: 'a', maxLength: 3 }, 'UNSUPPORTED', /Only one of pattern, format and a length/],
    [{ type: 'string', format: 'uri' }, 'UNSUPPORTED', /format at # can't be enforced; use one of date/],
    [{ type: 'integer', multipleOf: 3 }, 'UNSUPPORTED', /multipleOf at #/],
    [{ type: 'number', minimum: 1e30 }, 'UNSUPPORTED', /limit of 1e\+30/],
    [{ type: 'integer', exclusiveMinimum: true }, 'INVALID_REQUEST', /exclusiveMinimum at # must be a number/],
    [{ type: 'array', uniqueItems: true }, 'UNSUPPORTED', /uniqueItems at #/],
    [{ type: 'array', contains: {} }, 'UNSUPPORTED', /keyword contains at #/],
    [{ not: {} }, 'UNSUPPORTED', /keyword not at #/],
    [{ if: {}, then: {} }, 'UNSUPPORTED', /keyword if at #/],
    [{ patternProperties: {} }, 'UNSUPPORTED', /keyword patternProperties at #/],
    [{ properties: { a: { dependentRequired: {} } } }, 'UNSUPPORTED', /dependentRequired at #\/properties\/a/],
    [{ type: 'object', minProperties: 2 }, 'UNSUPPORTED', /minProperties at #/],
    [{ type: 'object', maxProperties: 2 }, 'UNSUPPORTED', /maxProperties at #/],
    [{ enum: ['a', 'b'], maxLength: 1 }, 'UNSUPPORTED', /enum with maxLength/],
    [{ oneOf: [{ type: 'integer' }, { type: 'number' }] }, 'UNSUPPORTED', /oneOf at # has alternatives/],
    [{ allOf: [{ pattern: 'a' }, { pattern: 'b' }] }, 'UNSUPPORTED', /Two different pattern/],
    [{ type: 'string', maxLength: 1e6 }, 'UNSUPPORTED', /maxLength at # can be 50000 at most/],
  ])('%j', (schema, code, message) => {
    const compile = () => machineFor('json_schema', typeof schema === 'string' ? schema : JSON.stringify(schema));
    expect(compile).toThrow(expect.objectContaining({ code, message: expect.stringMatching(message) }));
  });
});
