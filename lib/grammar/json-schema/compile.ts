import { badGrammar, unsupported } from '../errors.js';
import { alt, altOf, type Expr, literal, NOTHING, optional, ref, repeat, type Rules, seq } from '../expr.js';
import { ANY_STRING, ANY_VALUE, bracketed, jsonRules, keyOtherThan, pair, WS } from './json-text.js';
import { type Flat, KEYWORD_TYPES, propertiesOf, type Schema, toSchema, type TypeName } from './keywords.js';
import { count, enumExpr, numeric, stringExpr } from './scalars.js';
import { SchemaDocument } from './schema.js';

const MAX_RULES = 20_000;
const MAX_NESTING = 1_000;

/**
 * The JSON texts of values that are valid under a JSON schema. Declared properties come in the order of the schema, and
 * before others. Properties that the schema does not mention are left out unless `additionalProperties` is given or
 * there are no others.
 * @throws DetinferError INVALID_REQUEST for a schema that is wrong, UNSUPPORTED for one that can't be enforced exactly.
 */
export function jsonSchemaRules(text: string): Rules {
  let root: unknown;
  try {
    root = JSON.parse(text);
  } catch (error) {
    throw badGrammar(`The JSON schema is no JSON: ${(error as Error).message}`);
  }
  checkNesting(root);
  return new SchemaCompiler(toSchema(root, '#')).compile();
}

/** @throws DetinferError UNSUPPORTED for a schema with lists and objects so deep that JSON.stringify could not write it. */
export function checkNesting(schema: unknown): void {
  if (nestsDeeper(schema, MAX_NESTING)) throw unsupported(`The JSON schema nests more than ${MAX_NESTING} deep.`);
}

function nestsDeeper(value: unknown, limit: number): boolean {
  if (typeof value !== 'object' || value === null) return false;
  return limit === 0 || Object.values(value).some((item) => nestsDeeper(item, limit - 1));
}

class SchemaCompiler {
  private readonly document: SchemaDocument;
  private readonly rules = jsonRules();
  /** Names of the rules of schemas, which are compiled in turn. */
  private readonly names = new Map<Schema, string>();
  private readonly queue: { name: string; schema: Schema; path: string }[] = [];

  constructor(root: Schema) {
    this.document = new SchemaDocument(root);
  }

  compile(): Rules {
    const root = this.ruleOf(this.document.root, '#');
    for (let next = this.queue.pop(); next; next = this.queue.pop()) {
      const { name, schema, path } = next;
      const alternatives = this.document.alternatives(schema, path);
      this.rules.set(name, altOf(alternatives.map((flat) => this.flat(flat, path))));
    }
    const name = root.type === 'ref' ? root.rule : 'json.nothing';
    if (root.type !== 'ref') this.rules.set(name, root);
    return { root: name, rules: this.rules };
  }

  /** What matches a schema's values: a rule, so that schemas may contain themselves. */
  private ruleOf(schema: Schema, path: string): Expr {
    if (schema === true) return ANY_VALUE;
    if (schema === false) return NOTHING;
    let name = this.names.get(schema);
    if (name === undefined) {
      if (this.names.size >= MAX_RULES) throw unsupported('The JSON schema is too large, or it grows without an end.');
      name = `${path} (${this.names.size})`;
      this.names.set(schema, name);
      this.queue.push({ name, schema, path });
    }
    return ref(name);
  }

  private sub(value: unknown, path: string): Expr {
    return this.ruleOf(toSchema(value, path), path);
  }

  private flat(flat: Flat, path: string): Expr {
    if (flat['$ref'] !== undefined)
      return this.ruleOf(this.document.lookUp(flat['$ref'], path), flat['$ref'] as string);
    if (flat['enum'] !== undefined) return enumExpr(flat, path);
    const mentioned = Object.keys(flat).flatMap((name) => KEYWORD_TYPES[name] ?? []);
    const types = (flat['type'] as TypeName[] | undefined) ?? [...new Set(mentioned)];
    if (types.length === 0) return ANY_VALUE;
    return altOf(types.map((type) => this.ofType(type, flat, path)));
  }

  private ofType(type: TypeName, flat: Flat, path: string): Expr {
    switch (type) {
      case 'null':
        return literal('null');
      case 'boolean':
        return alt(literal('true'), literal('false'));
      case 'integer':
      case 'number':
        return numeric(type, flat, path);
      case 'string':
        return stringExpr(flat, path);
      case 'array':
        return this.array(flat, path);
      case 'object':
        return this.object(flat, path);
    }
  }

  private array(flat: Flat, path: string): Expr {
    const { items, prefixItems, additionalItems } = flat;
    // Up to draft 2019-09 a list of items was what prefixItems is now.
    const isOldTuple = Array.isArray(items);
    const prefix = prefixItems ?? (isOldTuple ? items : []);
    if (!Array.isArray(prefix)) throw badGrammar(`prefixItems at ${path} must be a list.`);
    const min = count(flat, 'minItems', path) ?? 0;
    const max = count(flat, 'maxItems', path);
    if (flat['uniqueItems'] === true && (max === null || max > 1)) {
      throw unsupported(`uniqueItems at ${path} of the JSON schema can't be enforced; leave it out.`);
    }
    if (max !== null && max < min) return NOTHING;
    const rest = isOldTuple ? additionalItems : items;
    const restName = isOldTuple ? 'additionalItems' : 'items';
    // Without a word on them, items after a tuple are left out as far as that is allowed.
    const hasRest = rest !== undefined || min > prefix.length || prefix.length === 0;
    const item = this.sub(rest ?? true, `${path}/${restName}`);
    const more = (done: number): Expr => {
      if (done === max) return seq();
      const separated = (content: Expr) => (done === 0 ? content : seq(literal(','), WS, content));
      if (done < prefix.length) {
        const next = this.sub(prefix[done], `${path}/${isOldTuple ? 'items' : 'prefixItems'}/${done}`);
        const going = seq(separated(next), more(done + 1));
        return done >= min ? optional(going) : going;
      }
      if (!hasRest) return seq();
      const least = Math.max(0, min - done);
      if (done > 0) return repeat(separated(item), least, max === null ? null : max - done);
      const others = repeat(seq(literal(','), WS, item), Math.max(0, least - 1), max === null ? null : max - 1);
      return least > 0 ? seq(item, others) : optional(seq(item, others));
    };
    return bracketed('[', more(0), ']');
  }

  private object(flat: Flat, path: string): Expr {
    const declared = propertiesOf(flat, path);
    const required = flat['required'] ?? [];
    if (!Array.isArray(required) || !required.every((name) => typeof name === 'string')) {
      throw badGrammar(`required at ${path} must be a list of names.`);
    }
    const additional = flat['additionalProperties'];
    const undeclared = required.filter((name) => declared === null || !Object.hasOwn(declared, name));
    const all: [string, unknown][] = [
      ...Object.entries(declared ?? {}),
      ...undeclared.map((name): [string, unknown] => [name, additional ?? true]),
    ];
    // What nobody mentions may come where it is asked for, and where nothing else could.
    const others = additional ?? declared === null;
    const names = all.map(([name]) => name);
    const hasOthers = others !== false;
    const key = (): Expr => (names.length === 0 ? ANY_STRING : keyOtherThan(names));
    const other = hasOthers ? pair(key(), this.sub(others, `${path}/additionalProperties`)) : NOTHING;
    const least = this.leastOthers(flat, { names: names.length, required: required.length, hasOthers }, path);
    const pairs = all.map(([name, schema]) => ({
      isRequired: required.includes(name),
      expr: pair(literal(JSON.stringify(name)), this.sub(schema, `${path}/properties/${name}`)),
    }));
    return bracketed('{', this.members(pairs, other, least, path), '}');
  }

  /**
   * The number of undeclared properties that an object must have at least. The number of properties can't be counted
   * where keys may be repeated, so only limits that come to the same without counting are taken.
   */
  private leastOthers(
    flat: Flat,
    { names, required, hasOthers }: { names: number; required: number; hasOthers: boolean },
    path: string,
  ): number {
    const min = count(flat, 'minProperties', path) ?? 0;
    const max = count(flat, 'maxProperties', path);
    if (max !== null && (hasOthers || max < names)) {
      throw unsupported(`maxProperties at ${path} of the JSON schema can't be enforced; leave it out.`);
    }
    if (min <= required) return 0;
    if (min === 1 && names === 0) return 1;
    throw unsupported(`minProperties at ${path} of the JSON schema can't be enforced; leave it out.`);
  }

  /** Properties with commas between them: rules for what follows each, depending on whether something came before. */
  private members(pairs: { isRequired: boolean; expr: Expr }[], other: Expr, least: number, path: string): Expr {
    const following = (content: Expr): Expr => seq(literal(','), WS, content);
    const id = `${path} members (${this.rules.size})`;
    const after = (index: number): Expr => ref(`${id} ${index}`);
    this.rules.set(`${id} ${pairs.length}`, repeat(following(other), 0, null));
    for (let i = pairs.length - 1; i >= 0; --i) {
      const { isRequired, expr } = pairs[i]!;
      const next = following(expr);
      this.rules.set(`${id} ${i}`, seq(isRequired ? next : optional(next), after(i + 1)));
    }
    const starts: Expr[] = [];
    for (const [i, { isRequired, expr }] of pairs.entries()) {
      starts.push(seq(expr, after(i + 1)));
      if (isRequired) return altOf(starts);
    }
    starts.push(seq(other, after(pairs.length)));
    return least > 0 ? altOf(starts) : optional(altOf(starts));
  }
}
