import { badGrammar, unsupported } from '../errors.js';
import { altOf, type Expr, literal, NOTHING, repeat } from '../expr.js';
import { searchExpr } from '../regex.js';
import { formatExpr } from './formats.js';
import { ANY_STRING, INTEGER, NUMBER, quoted, STRING_CHAR, stringContent } from './json-text.js';
import { type Flat, fitsType, type TypeName } from './keywords.js';
import { integerExpr, numberExpr } from './number-range.js';

/** Longest that a length or number of items may be limited to. */
const MAX_LENGTH = 50_000;

export function enumExpr(flat: Flat, path: string): Expr {
  const others = Object.keys(flat).filter((name) => name !== 'enum' && name !== 'type');
  if (others.length > 0) throw unsupported(`enum with ${others[0]} at ${path} of the JSON schema can't be enforced.`);
  const types = flat['type'] as TypeName[] | undefined;
  const values = (flat['enum'] as unknown[]).filter((value) => types === undefined || fitsType(value, types));
  return altOf([...new Set(values.map((value) => JSON.stringify(value)))].map(literal));
}

export function stringExpr(flat: Flat, path: string): Expr {
  const min = count(flat, 'minLength', path) ?? 0;
  const max = count(flat, 'maxLength', path);
  const { pattern, format } = flat;
  const given = [pattern, format, min > 0 || max !== null || undefined].filter((value) => value !== undefined);
  if (given.length > 1) {
    throw unsupported(`Only one of pattern, format and a length at ${path} of the JSON schema can be enforced.`);
  }
  if (format !== undefined) return quoted(stringContent(formatExpr(format, path)));
  if (pattern !== undefined) {
    if (typeof pattern !== 'string') throw badGrammar(`pattern at ${path} must be a string.`);
    return quoted(stringContent(searchExpr(pattern)));
  }
  if (min === 0 && max === null) return ANY_STRING;
  return max !== null && max < min ? NOTHING : quoted(repeat(STRING_CHAR, min, max));
}

export function numeric(type: 'integer' | 'number', flat: Flat, path: string): Expr {
  const limits = ['minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum'].map((name) => {
    const value = flat[name];
    if (value !== undefined && typeof value !== 'number') throw badGrammar(`${name} at ${path} must be a number.`);
    return value ?? null;
  });
  const multiple = flat['multipleOf'];
  if (multiple !== undefined && !(multiple === 1 && type === 'integer')) {
    throw unsupported(`multipleOf at ${path} of the JSON schema can't be enforced; leave it out.`);
  }
  const [minimum, maximum, above, below] = limits as [number | null, number | null, number | null, number | null];
  if (limits.every((limit) => limit === null)) return type === 'integer' ? INTEGER : NUMBER;
  const minExclusive = above !== null && (minimum === null || above >= minimum);
  const maxExclusive = below !== null && (maximum === null || below <= maximum);
  const range = {
    min: minExclusive ? above : minimum,
    max: maxExclusive ? below : maximum,
    minExclusive,
    maxExclusive,
  };
  if (range.min !== null && range.max !== null && range.min > range.max) return NOTHING;
  return type === 'integer' ? integerExpr(range) : numberExpr(range);
}

/** A keyword that is a number of things. */
export function count(flat: Flat, name: string, path: string): number | null {
  const value = flat[name];
  if (value === undefined) return null;
  if (!Number.isInteger(value) || (value as number) < 0) throw badGrammar(`${name} at ${path} must be a whole number.`);
  if ((value as number) > MAX_LENGTH) throw unsupported(`${name} at ${path} can be ${MAX_LENGTH} at most.`);
  return value as number;
}
