import type { CharSet } from './char-set.js';

export type ByteRange = readonly [low: number, high: number];

/** The UTF-8 encodings of a range's characters, as a few sequences of byte ranges. */
function sequencesOf(first: number, last: number, out: ByteRange[][]): void {
  // Cut where the number of bytes changes.
  for (const limit of [0x7f, 0x7ff, 0xffff]) {
    if (first <= limit && limit < last) {
      sequencesOf(first, limit, out);
      sequencesOf(limit + 1, last, out);
      return;
    }
  }
  if (last <= 0x7f) {
    out.push([[first, last]]);
    return;
  }
  // Cut so that the bytes after the first that differs run through their whole range.
  for (let shift = 6; shift <= 18; shift += 6) {
    const mask = (1 << shift) - 1;
    if (first >> shift === last >> shift) continue;
    if ((first & mask) !== 0) {
      sequencesOf(first, first | mask, out);
      sequencesOf((first | mask) + 1, last, out);
      return;
    }
    if ((last & mask) !== mask) {
      sequencesOf(first, (last & ~mask) - 1, out);
      sequencesOf(last & ~mask, last, out);
      return;
    }
  }
  const from = Buffer.from(String.fromCodePoint(first));
  const to = Buffer.from(String.fromCodePoint(last));
  out.push(Array.from(from, (byte, i) => [byte, to[i]!] as const));
}

/** @param set without surrogates, which have no encoding. */
export function utf8Sequences(set: CharSet): ByteRange[][] {
  const out: ByteRange[][] = [];
  for (const [first, last] of set) sequencesOf(first, last, out);
  return out;
}
