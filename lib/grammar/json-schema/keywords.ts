import { badGrammar, unsupported } from '../errors.js';

/** A schema without combinations, or a reference alone. */
export type Flat = Readonly<Record<string, unknown>>;
export type Schema = boolean | Readonly<Record<string, unknown>>;

export const TYPES = ['null', 'boolean', 'integer', 'number', 'string', 'array', 'object'] as const;
export type TypeName = (typeof TYPES)[number];

/** Keywords that say nothing about what is valid. */
const ANNOTATIONS = new Set([
  ...['title', 'description', 'default', 'examples', 'example', '$comment', '$schema', '$id', '$defs', 'definitions'],
  ...['deprecated', 'readOnly', 'writeOnly'],
]);
const COMBINATIONS = new Set(['$ref', 'allOf', 'anyOf', 'oneOf']);
/** The types that a keyword is about; of others it says nothing. */
export const KEYWORD_TYPES: Readonly<Record<string, readonly TypeName[]>> = {
  ...Object.fromEntries(['minLength', 'maxLength', 'pattern', 'format'].map((name) => [name, ['string']])),
  ...Object.fromEntries(
    ['minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum', 'multipleOf'].map((name) => [
      name,
      ['integer', 'number'],
    ]),
  ),
  ...Object.fromEntries(
    ['items', 'prefixItems', 'additionalItems', 'minItems', 'maxItems', 'uniqueItems'].map((name) => [name, ['array']]),
  ),
  ...Object.fromEntries(
    ['properties', 'required', 'additionalProperties', 'minProperties', 'maxProperties'].map((name) => [
      name,
      ['object'],
    ]),
  ),
};
const KNOWN = new Set(['type', 'enum', 'const', ...Object.keys(KEYWORD_TYPES)]);
export function isSchemaObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

export function toSchema(value: unknown, path: string): Schema {
  if (typeof value === 'boolean' || isSchemaObject(value)) return value;
  throw badGrammar(`The JSON schema must have an object, true or false at ${path}.`);
}

/** The assertions of a schema itself. `type` becomes a list, and `const` an `enum`. */
export function ownAssertions(schema: Readonly<Record<string, unknown>>, path: string): Flat {
  const own: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(schema)) {
    if (ANNOTATIONS.has(name) || name.startsWith('x-') || COMBINATIONS.has(name)) continue;
    if (!KNOWN.has(name)) {
      throw unsupported(`The keyword ${name} at ${path} of the JSON schema can't be enforced; leave it out.`);
    }
    if (name === 'type') own['type'] = typesOf(value, path);
    else if (name === 'const') own['enum'] = [value];
    else if (name !== 'enum') own[name] = value;
  }
  const values = schema['enum'];
  if (values === undefined) return own;
  if (!Array.isArray(values)) throw badGrammar(`enum at ${path} must be a list.`);
  own['enum'] = own['enum'] === undefined ? values : values.filter((value) => isSame(value, schema['const']));
  return own;
}

function typesOf(value: unknown, path: string): TypeName[] {
  const types = [value].flat();
  if (types.length === 0 || !types.every((type) => TYPES.includes(type as TypeName))) {
    throw badGrammar(`type at ${path} must be one or more of ${TYPES.join(', ')}.`);
  }
  return types as TypeName[];
}

/** The type of a JSON value; a whole number is an integer. */
function typeOfValue(value: unknown): TypeName {
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'array';
  if (typeof value === 'number') return Number.isInteger(value) ? 'integer' : 'number';
  return typeof value as TypeName;
}

export function fitsType(value: unknown, types: readonly TypeName[]): boolean {
  const type = typeOfValue(value);
  return types.includes(type) || (type === 'integer' && types.includes('number'));
}

export function propertiesOf(flat: Flat, path: string): Readonly<Record<string, unknown>> | null {
  const value = flat['properties'];
  if (value === undefined) return null;
  if (!isSchemaObject(value)) throw badGrammar(`properties at ${path} must be an object.`);
  return value;
}

export function isSame(a: unknown, b: unknown): boolean {
  if (a === b) return true;
  if (typeof a !== 'object' || typeof b !== 'object' || a === null || b === null) return false;
  if (Array.isArray(a) !== Array.isArray(b)) return false;
  const keys = Object.keys(a);
  if (keys.length !== Object.keys(b).length) return false;
  return keys.every(
    (key) => Object.hasOwn(b, key) && isSame((a as Record<string, unknown>)[key], (b as Record<string, unknown>)[key]),
  );
}
