/** Sets of Unicode characters, as sorted ranges of code points that neither touch nor overlap. */
export type CharSet = readonly (readonly [first: number, last: number])[];

const MAX_CODE_POINT = 0x10ffff;
const SURROGATES: CharSet = [[0xd800, 0xdfff]];

/** Every character that UTF-8 can encode. */
export const ANY_CHAR: CharSet = [
  [0, 0xd7ff],
  [0xe000, MAX_CODE_POINT],
];

/** Sorts and joins ranges in any order. */
export function charSet(ranges: Iterable<readonly [number, number]>): CharSet {
  const sorted = [...ranges].sort((a, b) => a[0] - b[0]);
  const result: [number, number][] = [];
  for (const [first, last] of sorted) {
    const previous = result.at(-1);
    if (previous && first <= previous[1] + 1) previous[1] = Math.max(previous[1], last);
    else result.push([first, last]);
  }
  return result;
}

/** The set of the characters of a text. */
export function charsOf(text: string): CharSet {
  return charSet(Array.from(text, (character) => [character.codePointAt(0)!, character.codePointAt(0)!] as const));
}

/** The characters that are not in the set. Surrogates are none. */
export function complement(set: CharSet): CharSet {
  const outside: [number, number][] = [];
  let next = 0;
  for (const [first, last] of charSet([...set, ...SURROGATES])) {
    if (first > next) outside.push([next, first - 1]);
    next = last + 1;
  }
  if (next <= MAX_CODE_POINT) outside.push([next, MAX_CODE_POINT]);
  return outside;
}

export function intersect(a: CharSet, b: CharSet): CharSet {
  return complement(charSet([...complement(a), ...complement(b)]));
}

export function subtract(a: CharSet, b: CharSet): CharSet {
  return intersect(a, complement(b));
}

export function hasChar(set: CharSet, codePoint: number): boolean {
  return set.some(([first, last]) => codePoint >= first && codePoint <= last);
}

export const DIGITS: CharSet = [[0x30, 0x39]];
export const WORD_CHARS = charSet([...DIGITS, [0x41, 0x5a], [0x5f, 0x5f], [0x61, 0x7a]]);
/** What \s is in JavaScript. */
export const SPACES = charsOf(
  '\t\n\v\f\r \u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000\ufeff',
);
const LINE_ENDS = charsOf('\n\r\u2028\u2029');
/** What a dot is in JavaScript. */
export const DOT = complement(LINE_ENDS);

const properties = new Map<string, CharSet>();

/**
 * The characters with a Unicode property, `L` or `Script=Greek` say, by the tables of the JavaScript engine.
 * @throws SyntaxError for one that does not exist.
 */
export function unicodeProperty(name: string): CharSet {
  const known = properties.get(name);
  if (known) return known;
  const pattern = new RegExp(`^\\p{${name}}$`, 'u');
  const ranges: [number, number][] = [];
  for (const [first, last] of ANY_CHAR) {
    for (let codePoint = first; codePoint <= last; ++codePoint) {
      if (!pattern.test(String.fromCodePoint(codePoint))) continue;
      const previous = ranges.at(-1);
      if (previous && previous[1] === codePoint - 1) previous[1] = codePoint;
      else ranges.push([codePoint, codePoint]);
    }
  }
  properties.set(name, ranges);
  return ranges;
}
