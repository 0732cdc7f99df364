import { DIGITS } from '../char-set.js';
import { unsupported } from '../errors.js';
import { alt, chars, EMPTY, type Expr, literal, NOTHING, optional, repeat, seq } from '../expr.js';
import { MAX_DIGITS } from './json-text.js';

/** A limit that is null is none. */
export interface NumberRange {
  min: number | null;
  max: number | null;
  /** Whether the limits themselves are left out. */
  minExclusive: boolean;
  maxExclusive: boolean;
}

/** A limit without its sign. */
interface Bound {
  whole: bigint;
  /** Digits after the point, without zeros at the end. */
  fraction: string;
  exclusive: boolean;
}

const digit = chars(DIGITS);
const LARGEST: Bound = { whole: 10n ** BigInt(MAX_DIGITS) - 1n, fraction: '', exclusive: false };
const ZERO: Bound = { whole: 0n, fraction: '', exclusive: false };

/** The integers of a range, up to 15 digits. */
export function integerExpr(range: NumberRange): Expr {
  return signed(range, (low, high) => {
    const first = low.whole + (low.fraction !== '' || low.exclusive ? 1n : 0n);
    const last = high.whole - (high.fraction === '' && high.exclusive ? 1n : 0n);
    return wholeExpr(first, last);
  });
}

/** The numbers of a range, in decimal notation with up to 15 digits before the point. */
export function numberExpr(range: NumberRange): Expr {
  return signed(range, (low, high) => {
    const places = Math.min(placesFor(low), placesFor(high));
    if (low.whole === high.whole) return seq(literal(String(low.whole)), fractionExpr(low, high, places));
    return alt(
      seq(literal(String(low.whole)), fractionExpr(low, null, places)),
      seq(wholeExpr(low.whole + 1n, high.whole - 1n), optional(seq(literal('.'), repeat(digit, 1, places)))),
      seq(literal(String(high.whole)), fractionExpr(null, high, places)),
    );
  });
}

/** So few places that no decimal beside an exclusive limit is read as the limit itself. */
function placesFor({ whole, exclusive }: Bound): number {
  return exclusive && whole > 0n ? Math.max(1, MAX_DIGITS - String(whole).length) : MAX_DIGITS;
}

/** Splits a range into its negative and other numbers, which `magnitudes` matches without a sign. */
function signed(
  { min, max, minExclusive, maxExclusive }: NumberRange,
  magnitudes: (low: Bound, high: Bound) => Expr,
): Expr {
  const low = min === null ? { ...LARGEST } : boundOf(min, minExclusive);
  const high = max === null ? { ...LARGEST } : boundOf(max, maxExclusive);
  const isLowNegative = min === null || min < 0;
  const isHighNegative = max !== null && max < 0;
  const parts: Expr[] = [];
  if (!isHighNegative) parts.push(between(isLowNegative ? ZERO : low, high, magnitudes));
  if (isLowNegative) {
    const nearest = isHighNegative ? high : { ...ZERO, exclusive: true };
    parts.push(seq(literal('-'), between(nearest, low, magnitudes)));
  }
  return alt(...parts);
}

function between(low: Bound, high: Bound, magnitudes: (low: Bound, high: Bound) => Expr): Expr {
  return low.whole > high.whole ? NOTHING : magnitudes(low, high);
}

function boundOf(value: number, exclusive: boolean): Bound {
  const match = /^-?(\d+)(?:\.(\d+))?$/.exec(String(value));
  if (!match || match[1]!.length + (match[2] ?? '').length > MAX_DIGITS + 1) {
    throw unsupported(`A limit of ${value} in a JSON schema can't be enforced; use one of up to ${MAX_DIGITS} digits.`);
  }
  return { whole: BigInt(match[1]!), fraction: match[2] ?? '', exclusive };
}

function wholeExpr(first: bigint, last: bigint): Expr {
  const parts: Expr[] = [];
  for (let from = first; from <= last;) {
    const length = String(from).length;
    const largest = 10n ** BigInt(length) - 1n;
    const to = largest < last ? largest : last;
    parts.push(sameLength(String(from), String(to)));
    from = to + 1n;
  }
  return alt(...parts);
}

/** Numbers from one to another of the same length, zeros in front included. */
function sameLength(from: string, to: string): Expr {
  const length = from.length;
  if (/^0*$/.test(from) && /^9*$/.test(to)) return repeat(digit, length, length);
  const [low, high] = [Number(from[0]), Number(to[0])];
  if (low === high) return seq(literal(from[0]!), sameLength(from.slice(1), to.slice(1)));
  return alt(
    seq(literal(from[0]!), sameLength(from.slice(1), '9'.repeat(length - 1))),
    seq(digits(low + 1, high - 1), repeat(digit, length - 1, length - 1)),
    seq(literal(to[0]!), sameLength('0'.repeat(length - 1), to.slice(1))),
  );
}

function digits(low: number, high: number): Expr {
  return low > high ? NOTHING : chars([[0x30 + low, 0x30 + high]]);
}

/** The fraction of a number whose whole part equals that of the given limits, as far as there are any. */
function fractionExpr(low: Bound | null, high: Bound | null, places: number): Expr {
  const tail = (below: string | null, above: string | null, left: number, mayEnd: boolean): Expr => {
    if (below === null && above === null) return repeat(digit, mayEnd ? 0 : 1, left);
    const parts: Expr[] = mayEnd && isInside(below, above) ? [EMPTY] : [];
    if (left === 0) return alt(...parts);
    const first = below === null ? 0 : Number(below[0] ?? '0');
    const last = above === null ? 9 : Number(above[0] ?? '0');
    // Past a limit's own digits only zeros equal it: one more step with nothing left of it.
    const rest = (limit: string | null): string | null => limit && limit.slice(1);
    if (first === last) {
      parts.push(seq(literal(String(first)), tail(rest(below), rest(above), left - 1, true)));
    } else if (first < last) {
      const from = below === null ? first : first + 1;
      const to = above === null ? last : last - 1;
      if (below !== null) parts.push(seq(literal(String(first)), tail(rest(below), null, left - 1, true)));
      parts.push(seq(digits(from, to), tail(null, null, left - 1, true)));
      if (above !== null) parts.push(seq(literal(String(last)), tail(null, rest(above), left - 1, true)));
    }
    return alt(...parts);
  };
  const isInside = (below: string | null, above: string | null): boolean => {
    const isAboveLow = below === null || (isZero(below) && !low!.exclusive);
    return isAboveLow && (above === null || !isZero(above) || !high!.exclusive);
  };
  const [below, above] = [low?.fraction ?? null, high?.fraction ?? null];
  return alt(isInside(below, above) ? EMPTY : NOTHING, seq(literal('.'), tail(below, above, places, false)));
}

function isZero(digits: string): boolean {
  return /^0*$/.test(digits);
}
