import { badGrammar, unsupported } from '../errors.js';
import { conjunction } from './conjunction.js';
import { type Flat, isSchemaObject, ownAssertions, type Schema, toSchema, type TypeName } from './keywords.js';

const MAX_ALTERNATIVES = 10_000;
/** Each is compared with each. */
const MAX_ONE_OF = 256;
const MAX_DEPTH = 64;

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
      if (result.length * others.length > MAX_ALTERNATIVES) {
        throw unsupported(`The JSON schema has too many alternatives at ${path}.`);
      }
      result = result.flatMap((a) => others.flatMap((b) => this.both(a, b, path, depth + 1)));
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
    if (parts.length > MAX_ONE_OF)
      throw unsupported(`oneOf at ${path} has more than ${MAX_ONE_OF} alternatives; use anyOf.`);
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
