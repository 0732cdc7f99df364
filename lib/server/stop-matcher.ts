import { RegexScanner, type StopRegex } from './stop-regex.js';

/** Looks for one pattern in text that arrives character by character. Offsets count UTF-16 units from the start. */
export interface StopScanner {
  readonly pattern: string;
  /** Takes the character at offset … end-1. @returns where a match that is now certain begins, or -1. */
  step(codePoint: number, offset: number, end: number): number;
  /** No more text follows. @returns where a match that this makes certain begins, or -1. */
  finish(end: number): number;
  /** Where the earliest match that is still possible begins; `end` when none has begun. */
  earliestStart(end: number): number;
}

/** Knuth, Morris and Pratt's search for a fixed string. */
class StringScanner implements StopScanner {
  private readonly codePoints: number[];
  /** fallback[n]: length of the longest proper prefix that the first n characters also end with. */
  private readonly fallback: number[] = [0, 0];
  /** units[n]: UTF-16 length of the first n characters. */
  private readonly units: number[] = [0];
  private matched = 0;

  constructor(readonly pattern: string) {
    this.codePoints = Array.from(pattern, (character) => character.codePointAt(0)!);
    for (const codePoint of this.codePoints) this.units.push(this.units.at(-1)! + unitsOf(codePoint));
    for (let n = 1; n < this.codePoints.length; ++n) {
      this.fallback.push(this.advance(this.fallback[n]!, this.codePoints[n]!));
    }
  }

  step(codePoint: number, _offset: number, end: number): number {
    this.matched = this.advance(this.matched, codePoint);
    return this.matched === this.codePoints.length ? end - this.pattern.length : -1;
  }

  finish(): number {
    return -1;
  }

  earliestStart(end: number): number {
    return end - this.units[this.matched]!;
  }

  private advance(matched: number, codePoint: number): number {
    let n = matched;
    while (n > 0 && this.codePoints[n] !== codePoint) n = this.fallback[n]!;
    return this.codePoints[n] === codePoint ? n + 1 : n;
  }
}

function unitsOf(codePoint: number): number {
  return codePoint > 0xffff ? 2 : 1;
}

/** Text that may be shown, and the pattern that ended it, if one did. */
export interface Released {
  text: string;
  matched: string | null;
}

/**
 * Ends a growing text at the first of some stop strings and regular expressions. What may turn out to be part of a
 * match is held back until that is decided, so what was released is never taken back. The result depends on the text
 * alone, not on how it was cut into pieces: the match that ends first counts, and of several the one that begins first.
 */
export class StopMatcher {
  private readonly scanners: StopScanner[];
  private held = '';
  /** Offset of the end of `held`. */
  private end = 0;

  /** @param keepMatch release the match, and the rest of the piece that completed it, too. */
  constructor(
    strings: readonly string[],
    regexes: readonly StopRegex[],
    private readonly keepMatch: boolean,
  ) {
    this.scanners = [...strings.map((s) => new StringScanner(s)), ...regexes.map((r) => new RegexScanner(r))];
  }

  /** Appends text. After a match neither `push` nor `finish` may be called. */
  push(text: string): Released {
    if (this.scanners.length === 0) return { text, matched: null };
    this.held += text;
    const heldEnd = this.end + text.length;
    for (const character of text) {
      const codePoint = character.codePointAt(0)!;
      const offset = this.end;
      this.end += unitsOf(codePoint);
      const match = this.earliest((scanner) => scanner.step(codePoint, offset, this.end));
      if (match) return this.release(match, heldEnd);
    }
    const safe = this.scanners.reduce((start, scanner) => Math.min(start, scanner.earliestStart(this.end)), this.end);
    const cut = this.held.length - (this.end - safe);
    const released = this.held.slice(0, cut);
    this.held = this.held.slice(cut);
    return { text: released, matched: null };
  }

  /** Releases what was held back, for no more text follows. */
  finish(): Released {
    const match = this.earliest((scanner) => scanner.finish(this.end));
    if (match) return this.release(match, this.end);
    return { text: this.held, matched: null };
  }

  private earliest(run: (scanner: StopScanner) => number): { start: number; pattern: string } | null {
    let best: { start: number; pattern: string } | null = null;
    for (const scanner of this.scanners) {
      const start = run(scanner);
      if (start >= 0 && (best === null || start < best.start)) best = { start, pattern: scanner.pattern };
    }
    return best;
  }

  private release(match: { start: number; pattern: string }, heldEnd: number): Released {
    const before = this.held.length - (heldEnd - match.start);
    return { text: this.keepMatch ? this.held : this.held.slice(0, before), matched: match.pattern };
  }
}
