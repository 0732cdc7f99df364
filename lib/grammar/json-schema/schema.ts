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
const LARGER_WINS = new Set(['minimum', 'exclusiveMinimum', 'minLength', 'minItems', 'minProperties']);
const SMALLER_WINS = new Set(['maximum', 'exclusiveMaximum', 'maxLength', 'maxItems', 'maxProperties']);
const MAX_ALTERNATIVES = 1000;
const MAX_DEPTH = 64;

export function isSchemaObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

export function toSchema(value: unknown, path: string): Schema {
  if (typeof value === 'boolean' || isSchemaObject(value)) return value;
  throw badGrammar(`The JSON schema must have an object, true or false at ${path}.`);
}

/** A document of schemas, in which references are looked up and combinations written out as alternatives. */
export class SchemaDocument {
  constructor(readonly root: Schema) {}

  /** The schema that a reference names. @throws DetinferError for one that names nothing in this document. */
  lookUp(reference: unknown, path: string): Schema {
    if (typeof reference !== 'string' || !/^#(\/|$)/.test(reference)) {
      throw unsupported(`The $ref at ${path} must begin with #/: only references within the schema are supported.`);
    }
    let value: unknown = this.root;
    for (const part of pointerParts(reference)) {
      const key = part.replaceAll('~1', '/').replaceAll('~0', '~');
      const isThere = typeof value === 'object' && value !== null && Object.hasOwn(value, key);
      if (!isThere) throw badGrammar(`The $ref ${reference} at ${path} names nothing in the JSON schema.`);
      value = (value as Record<string, unknown>)[key];
    }
    return toSchema(value, reference);
  }

  /**
   * Schemas without combinations of which a valid value must fit one.
   * @throws DetinferError for what is wrong or can't be enforced exactly.
   */
  alternatives(schema: Schema, path: string, depth = 0): Flat[] {
    if (depth > MAX_DEPTH) throw unsupported(`The JSON schema combines schemas without an end at ${path}.`);
    if (schema === false) return [];
    if (schema === true) return [{}];
    const own = ownAssertions(schema, path);
    let result: Flat[] = [own];
    const also = (others: Flat[]): void => {
      result = result.flatMap((a) => others.flatMap((b) => this.both(a, b, path, depth + 1)));
      if (result.length > MAX_ALTERNATIVES) throw unsupported(`The JSON schema has too many alternatives at ${path}.`);
    };
    const list = (name: string): Schema[] | null => {
      const value = schema[name];
      if (value === undefined) return null;
      if (!Array.isArray(value) || value.length === 0)
        throw badGrammar(`${name} at ${path} must be a list of schemas.`);
      return value.map((item, i) => toSchema(item, `${path}/${name}/${i}`));
    };
    if (schema['$ref'] !== undefined) {
      this.lookUp(schema['$ref'], path);
      also([{ $ref: schema['$ref'] }]);
    }
    list('allOf')?.forEach((part, i) => also(this.alternatives(part, `${path}/allOf/${i}`, depth + 1)));
    for (const name of ['anyOf', 'oneOf']) {
      const parts = list(name)?.map((part, i) => this.alternatives(part, `${path}/${name}/${i}`, depth + 1));
      if (parts === undefined) continue;
      if (name === 'oneOf') this.requireDisjoint(parts, path);
      also(parts.flat());
    }
    return result;
  }

  /** What fits both schemas, as no or more alternatives. */
  private both(a: Flat, b: Flat, path: string, depth: number): Flat[] {
    if (Object.keys(a).length === 0) return [b];
    if (Object.keys(b).length === 0) return [a];
    if (a['$ref'] === undefined && b['$ref'] === undefined) {
      const merged = conjunction(a, b, path);
      return merged === null ? [] : [merged];
    }
    if (a['$ref'] === b['$ref']) return [a];
    const open = (flat: Flat): Flat[] =>
      flat['$ref'] === undefined ? [flat] : this.alternatives(this.lookUp(flat['$ref'], path), path, depth + 1);
    return open(a).flatMap((left) => open(b).flatMap((right) => this.both(left, right, path, depth + 1)));
  }

  private requireDisjoint(parts: Flat[][], path: string): void {
    for (const [i, part] of parts.entries()) {
      for (const other of parts.slice(i + 1)) {
        if (part.every((a) => other.every((b) => this.areDisjoint(a, b, path, 0)))) continue;
        throw unsupported(
          `oneOf at ${path} has alternatives that one value may fit together, which can't be ruled out; use anyOf.`,
        );
      }
    }
  }

  /** Whether it is sure that no value fits both. */
  private areDisjoint(a: Flat, b: Flat, path: string, depth: number): boolean {
    if (depth > 8) return false;
    if (a['$ref'] !== undefined || b['$ref'] !== undefined) {
      const open = (flat: Flat): Flat[] =>
        flat['$ref'] === undefined ? [flat] : this.alternatives(this.lookUp(flat['$ref'], path), path, depth + 1);
      return open(a).every((left) => open(b).every((right) => this.areDisjoint(left, right, path, depth + 1)));
    }
    const types = conjunction(pick(a, ['type', 'enum']), pick(b, ['type', 'enum']), path);
    if (types === null) return true;
    const [left, right] = [a['properties'], b['properties']];
    if (!hasOnlyType(a, 'object') || !hasOnlyType(b, 'object')) return false;
    if (!isSchemaObject(left) || !isSchemaObject(right)) return false;
    const required = (flat: Flat, name: string) => Array.isArray(flat['required']) && flat['required'].includes(name);
    return Object.keys(left).some((name) => {
      if (!Object.hasOwn(right, name) || !required(a, name) || !required(b, name)) return false;
      const options = (schema: unknown) => this.alternatives(toSchema(schema, path), path, depth + 1);
      return options(left[name]).every((x) =>
        options(right[name]).every((y) => this.areDisjoint(x, y, path, depth + 1)),
      );
    });
  }
}

function pointerParts(reference: string): string[] {
  try {
    return reference.split('/').slice(1).map(decodeURIComponent);
  } catch {
    throw badGrammar(`The $ref ${reference} has an escape that can't be read.`);
  }
}

function pick(flat: Flat, names: readonly string[]): Flat {
  return Object.fromEntries(Object.entries(flat).filter(([name]) => names.includes(name)));
}

function hasOnlyType(flat: Flat, type: TypeName): boolean {
  const types = flat['type'] as TypeName[] | undefined;
  return types?.length === 1 && types[0] === type;
}

/** The assertions of a schema itself. `type` becomes a list, and `const` an `enum`. */
function ownAssertions(schema: Readonly<Record<string, unknown>>, path: string): Flat {
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
export function typeOfValue(value: unknown): TypeName {
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'array';
  if (typeof value === 'number') return Number.isInteger(value) ? 'integer' : 'number';
  return typeof value as TypeName;
}

export function fitsType(value: unknown, types: readonly TypeName[]): boolean {
  const type = typeOfValue(value);
  return types.includes(type) || (type === 'integer' && types.includes('number'));
}

/** One schema for what fits both, or null where nothing can. @throws DetinferError where that is no single schema. */
function conjunction(a: Flat, b: Flat, path: string): Flat | null {
  const result: Record<string, unknown> = { ...a };
  for (const [name, value] of Object.entries(b)) {
    const mine = a[name];
    if (mine === undefined) result[name] = value;
    else if (name === 'type') result[name] = commonTypes(mine as TypeName[], value as TypeName[]);
    else if (name === 'enum')
      result[name] = (mine as unknown[]).filter((x) => (value as unknown[]).some((y) => isSame(x, y)));
    else if (name === 'required') result[name] = [...new Set([...(mine as string[]), ...(value as string[])])];
    else if (LARGER_WINS.has(name)) result[name] = Math.max(mine as number, value as number);
    else if (SMALLER_WINS.has(name)) result[name] = Math.min(mine as number, value as number);
    else if (name === 'properties' || name === 'additionalProperties') continue;
    else if (!isSame(mine, value)) throw unsupported(`Two different ${name} at ${path} can't be enforced together.`);
  }
  const arrays = ['items', 'prefixItems', 'additionalItems'];
  if (
    arrays.some((name) => !isSame(a[name], b[name])) &&
    arrays.some((x) => a[x] !== undefined) &&
    arrays.some((x) => b[x] !== undefined)
  ) {
    throw unsupported(`Two different kinds of items at ${path} can't be enforced together.`);
  }
  Object.assign(result, commonProperties(a, b, path));
  if (result['enum'] && result['type']) {
    result['enum'] = (result['enum'] as unknown[]).filter((value) => fitsType(value, result['type'] as TypeName[]));
  }
  const isEmpty = (name: string): boolean => (result[name] as unknown[] | undefined)?.length === 0;
  return isEmpty('type') || isEmpty('enum') ? null : result;
}

function commonTypes(a: readonly TypeName[], b: readonly TypeName[]): TypeName[] {
  const inBoth = (type: TypeName): boolean =>
    [a, b].every((types) => types.includes(type) || (type === 'integer' && types.includes('number')));
  return TYPES.filter((type) => inBoth(type) && !(type === 'integer' && inBoth('number')));
}

/** A property that only one side declares must fit what the other says of additional ones. */
function commonProperties(a: Flat, b: Flat, path: string): Record<string, unknown> {
  const sides = [a, b].map((flat) => ({
    properties: propertiesOf(flat, path),
    additional: flat['additionalProperties'],
  }));
  if (sides.every(({ properties, additional }) => properties === null && additional === undefined)) return {};
  const names = new Set(sides.flatMap(({ properties }) => Object.keys(properties ?? {})));
  const all = (schemas: unknown[]): unknown => {
    const given = schemas.filter((schema) => schema !== undefined && schema !== true);
    return given.length === 0 ? true : given.length === 1 ? given[0] : { allOf: given };
  };
  const merged = [...names].map((name) => {
    const parts = sides.map(({ properties, additional }) =>
      properties !== null && Object.hasOwn(properties, name) ? properties[name] : additional,
    );
    return [name, all(parts)] as const;
  });
  const additional = sides.map((side) => side.additional).filter((schema) => schema !== undefined);
  return {
    ...(names.size > 0 && { properties: Object.fromEntries(merged) }),
    ...(additional.length > 0 && { additionalProperties: all(additional) }),
  };
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
