import { badValue, SchemaError } from './errors.js';

export type JsonObject = Record<string, unknown>;

export function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** A value in an error message: short, whatever a client sent. */
export function show(value: unknown): string {
  if (Array.isArray(value)) return 'a list';
  if (isObject(value)) return 'an object';
  const text = JSON.stringify(value) ?? String(value);
  // JSON has no infinity, but 1e999 parses to it.
  const shown = typeof value === 'number' ? String(value) : text;
  return shown.length > 60 ? `${shown.slice(0, 60)}…` : shown;
}

/** Reads one JSON value as one type. `path` names it in errors. */
export type Read<T> = (value: unknown, path: string) => T;

function wrongType(path: string, expected: string, value: unknown): SchemaError {
  return new SchemaError(path, `${path} must be ${expected}, not ${show(value)}.`);
}

export const boolean: Read<boolean> = (value, path) => {
  if (typeof value !== 'boolean') throw wrongType(path, 'true or false', value);
  return value;
};

/** Text that is valid Unicode: a lone surrogate has no UTF-8. */
export const string: Read<string> = (value, path) => {
  if (typeof value !== 'string') throw wrongType(path, 'a string', value);
  if (/\p{Surrogate}/u.test(value)) throw badValue(`${path} is not valid Unicode: it has a lone surrogate.`);
  return value;
};

interface NumberRule {
  min: number;
  max: number;
  /** Whether `min` itself is too small. */
  exclusive?: boolean;
  /** A value outside the range that is allowed. */
  or?: number;
}

function rangeText({ min, max, exclusive, or }: NumberRule): string {
  const upper = Math.abs(max) >= Number.MAX_SAFE_INTEGER ? '' : `, at most ${max}`;
  return `${exclusive ? 'greater than' : 'at least'} ${min}${upper}${or === undefined ? '' : `, or ${or}`}`;
}

function inRange(value: number, rule: NumberRule): boolean {
  if (value === rule.or) return true;
  return value <= rule.max && (rule.exclusive ? value > rule.min : value >= rule.min);
}

export function number(rule: NumberRule): Read<number> {
  return (value, path) => {
    if (typeof value !== 'number') throw wrongType(path, 'a number', value);
    if (!inRange(value, rule)) throw badValue(`${path} must be ${rangeText(rule)}; it is ${show(value)}.`);
    return value;
  };
}

export function integer(rule: Partial<NumberRule> = {}): Read<number> {
  const complete = { min: Number.MIN_SAFE_INTEGER, max: Number.MAX_SAFE_INTEGER, ...rule };
  return (value, path) => {
    if (typeof value !== 'number') throw wrongType(path, 'an integer', value);
    if (!Number.isInteger(value)) throw badValue(`${path} must be an integer; it is ${show(value)}.`);
    if (!Number.isSafeInteger(value)) {
      throw badValue(`${path} must be between -(2^53 - 1) and 2^53 - 1, where JSON numbers are exact; it is ${value}.`);
    }
    if (!inRange(value, complete)) throw badValue(`${path} must be ${rangeText(complete)}; it is ${value}.`);
    return value;
  };
}

export function tokenId(vocabSize: number): Read<number> {
  return (value, path) => {
    if (typeof value !== 'number') throw wrongType(path, 'a token id', value);
    if (!Number.isInteger(value) || value < 0 || value >= vocabSize) {
      throw badValue(`${path} must be a token id between 0 and ${vocabSize - 1}; it is ${show(value)}.`);
    }
    return value;
  };
}

export function list<T>(read: Read<T>): Read<T[]> {
  return (value, path) => {
    if (!Array.isArray(value)) throw wrongType(path, 'a list', value);
    return value.map((item, i) => read(item, `${path}[${i}]`));
  };
}

/** A list of token ids, without the cost of a path per element. */
export function tokenIds(vocabSize: number): Read<number[]> {
  const read = tokenId(vocabSize);
  return (value, path) => {
    if (!Array.isArray(value)) throw wrongType(path, 'a list of token ids', value);
    const bad = value.findIndex((id) => !(Number.isInteger(id) && id >= 0 && id < vocabSize));
    if (bad >= 0) read(value[bad], `${path}[${bad}]`);
    return value;
  };
}

export function oneOrList<T>(read: Read<T>): Read<T[]> {
  return (value, path) => (Array.isArray(value) ? list(read)(value, path) : [read(value, path)]);
}

/** The fields of an object; absent and null are the same. */
export class Fields {
  /** @param aliases what errors call the fields that the client knows by another name. */
  constructor(
    private readonly object: JsonObject,
    private readonly prefix = '',
    private readonly aliases: Readonly<Record<string, string>> = {},
  ) {}

  get names(): string[] {
    return Object.keys(this.object);
  }

  has(name: string): boolean {
    return Object.hasOwn(this.object, name) && this.object[name] !== null;
  }

  raw(name: string): unknown {
    return this.has(name) ? this.object[name] : undefined;
  }

  /** What the client calls a field. */
  alias(name: string): string {
    return this.aliases[name] ?? name;
  }

  path(name: string): string {
    return this.prefix + this.alias(name);
  }

  get<T>(name: string, read: Read<T>, byDefault: T): T {
    return this.has(name) ? read(this.object[name], this.path(name)) : byDefault;
  }
}

/** The body of a request, which must be an object. */
export function bodyFields(body: unknown): Fields {
  if (!isObject(body)) throw new SchemaError(null, `The body must be a JSON object, not ${show(body ?? null)}.`);
  return new Fields(body);
}
