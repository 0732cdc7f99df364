import {
  ANY_CHAR,
  type CharSet,
  charSet,
  charsOf,
  complement,
  DIGITS,
  hasChar,
  intersect,
  subtract,
} from '../char-set.js';
import { alt, chars, EMPTY, type Expr, literal, mapChars, optional, ref, repeat, seq } from '../expr.js';

/** What must be escaped in a string. */
const ESCAPED = charSet([[0, 0x1f], ...charsOf('"\\')]);
const PLAIN = complement(ESCAPED);
const HEX = charSet([...DIGITS, [0x41, 0x46], [0x61, 0x66]]);
const MAX_INDENT = 40;
/** A double holds any number of so many digits exactly enough to tell it from its neighbours. */
export const MAX_DIGITS = 15;

const digit = chars(DIGITS);
const hex = chars(HEX);
const nonZero = chars([[0x31, 0x39]]);

export const WS = ref('json.ws');
export const ANY_VALUE = ref('json.value');
export const ANY_STRING = ref('json.string');
export const STRING_CHAR = ref('json.char');
export const INTEGER = ref('json.integer');
export const NUMBER = ref('json.number');

/** The text of any JSON. Whitespace between tokens is none, a space, or a line break with indentation. */
export function jsonRules(): Map<string, Expr> {
  const integer = seq(optional(literal('-')), alt(literal('0'), seq(nonZero, repeat(digit, 0, MAX_DIGITS - 1))));
  const fraction = seq(literal('.'), repeat(digit, 1, MAX_DIGITS));
  // Of two digits, so that no number is infinite.
  const exponent = seq(chars(charsOf('eE')), optional(chars(charsOf('+-'))), repeat(digit, 1, 2));
  // No halves of surrogate pairs.
  const code = alt(
    seq(chars(subtract(HEX, charsOf('dD'))), hex, hex, hex),
    seq(chars(charsOf('dD')), chars([[0x30, 0x37]]), hex, hex),
  );
  const escape = seq(literal('\\'), alt(chars(charsOf('"\\/bfnrt')), seq(literal('u'), code)));
  return new Map<string, Expr>([
    ['json.ws', optional(alt(literal(' '), seq(literal('\n'), repeat(chars(charsOf(' \t')), 0, MAX_INDENT))))],
    ['json.char', alt(chars(PLAIN), escape)],
    ['json.string', quoted(repeat(STRING_CHAR, 0, null))],
    ['json.integer', integer],
    ['json.number', seq(integer, optional(fraction), optional(exponent))],
    ['json.array', listExpr('[', ']', ANY_VALUE)],
    ['json.object', listExpr('{', '}', pair(ANY_STRING, ANY_VALUE))],
    [
      'json.value',
      alt(...['true', 'false', 'null'].map(literal), NUMBER, ...['json.string', 'json.array', 'json.object'].map(ref)),
    ],
  ]);
}

function listExpr(open: string, close: string, item: Expr): Expr {
  return bracketed(open, optional(seq(item, repeat(seq(literal(','), WS, item), 0, null))), close);
}

export function bracketed(open: string, content: Expr, close: string): Expr {
  return seq(literal(open), WS, content, WS, literal(close));
}

export function quoted(content: Expr): Expr {
  return seq(literal('"'), content, literal('"'));
}

export function pair(key: Expr, value: Expr): Expr {
  return seq(key, literal(':'), WS, value);
}

/** What stands between the quotes of a string whose value the expression matches. */
export function stringContent(value: Expr): Expr {
  return mapChars(value, (set) => {
    const escaped: Expr[] = [];
    for (const [first, last] of intersect(set, ESCAPED)) {
      for (let code = first; code <= last; ++code) {
        escaped.push(literal(JSON.stringify(String.fromCodePoint(code)).slice(1, -1)));
      }
    }
    return alt(chars(intersect(set, PLAIN)), ...escaped);
  });
}

/** Strings without escapes other than the given ones: keys that are not declared. */
export function keyOtherThan(names: readonly string[]): Expr {
  const plain = names.filter((name) =>
    Array.from(name).every((character) => hasChar(PLAIN, character.codePointAt(0)!)),
  );
  return quoted(otherThan(plain.map((name) => Array.from(name))));
}

function otherThan(names: readonly string[][]): Expr {
  const anything = repeat(chars(PLAIN), 0, null);
  if (names.length === 0) return anything;
  const byFirst = new Map<string, string[][]>();
  for (const [first, ...rest] of names) {
    if (first === undefined) continue;
    byFirst.set(first, [...(byFirst.get(first) ?? []), rest]);
  }
  const others: CharSet = subtract(intersect(PLAIN, ANY_CHAR), charsOf([...byFirst.keys()].join('')));
  return alt(
    ...(names.some((name) => name.length === 0) ? [] : [EMPTY]),
    seq(chars(others), anything),
    ...[...byFirst].map(([first, rests]) => seq(literal(first), otherThan(rests))),
  );
}
