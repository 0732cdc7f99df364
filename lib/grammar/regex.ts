import {
  ANY_CHAR,
  charSet,
  type CharSet,
  complement,
  DIGITS,
  DOT,
  intersect,
  SPACES,
  unicodeProperty,
  WORD_CHARS,
} from './char-set.js';
import { badGrammar, unsupported } from './errors.js';
import { altOf, chars, EMPTY, type Expr, repeat, seq, seqOf } from './expr.js';

const CLASSES: Record<string, CharSet> = { d: DIGITS, w: WORD_CHARS, s: SPACES };
const CONTROLS: Record<string, number> = { n: 10, r: 13, t: 9, v: 11, f: 12, 0: 0 };
const MAX_REPEAT = 10_000;
const MAX_DEPTH = 200;

/** One alternative of a pattern, and at which ends it is tied to the ends of the text. */
interface Branch {
  expr: Expr;
  start: boolean;
  end: boolean;
}

/**
 * A regular expression in JavaScript's syntax (with the flag u) as an expression that matches a whole text. Anchors may
 * stand at the ends of the pattern's alternatives, where they change nothing.
 * @throws DetinferError INVALID_REQUEST for bad syntax, UNSUPPORTED for what is no regular language or not built.
 */
export function regexExpr(pattern: string): Expr {
  return altOf(new RegexParser(pattern).parse().map(({ expr }) => expr));
}

/** As regexExpr, for a pattern that may match anywhere in a text, as in JSON Schema. */
export function searchExpr(pattern: string): Expr {
  const anything = repeat(chars(ANY_CHAR), 0, null);
  const branches = new RegexParser(pattern).parse();
  return altOf(branches.map(({ expr, start, end }) => seq(start ? EMPTY : anything, expr, end ? EMPTY : anything)));
}

class RegexParser {
  private readonly text: string[];
  private at = 0;
  private depth = 0;

  constructor(private readonly pattern: string) {
    this.text = Array.from(pattern);
  }

  parse(): Branch[] {
    const branches: Branch[] = [];
    do branches.push(this.branch());
    while (this.take('|'));
    if (this.at < this.text.length) throw this.bad(`unexpected ${this.text[this.at]}`);
    return branches;
  }

  private branch(): Branch {
    const start = this.take('^');
    const expr = this.sequence();
    const end = this.take('$');
    if (end && this.at < this.text.length && this.peek !== '|') throw this.misplacedAnchor();
    return { expr, start, end };
  }

  private sequence(): Expr {
    const items: Expr[] = [];
    while (this.at < this.text.length && !'|)$'.includes(this.peek)) items.push(this.quantified());
    return seqOf(items);
  }

  private quantified(): Expr {
    const item = this.atom();
    const range = this.quantifier();
    if (range === null) return item;
    // A lazy quantifier matches the same texts.
    this.take('?');
    if (this.quantifier() !== null) throw this.bad('nothing to repeat');
    return repeat(item, ...range);
  }

  private quantifier(): [min: number, max: number | null] | null {
    if (this.take('*')) return [0, null];
    if (this.take('+')) return [1, null];
    if (this.take('?')) return [0, 1];
    if (!this.take('{')) return null;
    const min = this.digits();
    const max = this.take(',') ? (this.peek === '}' ? null : this.digits()) : min;
    if (!this.take('}') || (max !== null && max < min)) throw this.bad('a bad quantifier');
    if (Math.max(min, max ?? 0) > MAX_REPEAT) throw unsupported(`${this.where}: at most ${MAX_REPEAT} repetitions.`);
    return [min, max];
  }

  private digits(): number {
    let digits = '';
    while (/^[0-9]$/.test(this.peek)) digits += this.next();
    if (digits === '') throw this.bad('a bad quantifier');
    return Number(digits);
  }

  private atom(): Expr {
    const character = this.next();
    switch (character) {
      case '.':
        return chars(DOT);
      case '(':
        return this.group();
      case '[':
        return chars(this.charClass());
      case '\\':
        return chars(this.escape(false));
      case '^':
        throw this.misplacedAnchor();
      case '*':
      case '+':
      case '?':
        throw this.bad('nothing to repeat');
      case '{':
      case '}':
      case ']':
        throw this.bad(`${character} must be written as \\${character}`);
      default:
        return chars(single(character.codePointAt(0)!));
    }
  }

  private group(): Expr {
    if (++this.depth > MAX_DEPTH) throw unsupported(`${this.where}: groups nest more than ${MAX_DEPTH} deep.`);
    if (this.take('?')) {
      const kind = this.next();
      if (kind === '<' && this.peek !== '=' && this.peek !== '!') {
        while (this.at < this.text.length && this.peek !== '>') this.at += 1;
        if (!this.take('>')) throw this.bad('a group name without an end');
      } else if (kind !== ':') {
        throw unsupported(`${this.where}: look-around and flags are not supported.`);
      }
    }
    const items: Expr[] = [];
    do items.push(this.sequence());
    while (this.take('|'));
    if (this.peek === '$') throw this.misplacedAnchor();
    if (!this.take(')')) throw this.bad('a group without an end');
    this.depth -= 1;
    return altOf(items);
  }

  private charClass(): CharSet {
    const negated = this.take('^');
    const ranges: (readonly [number, number])[] = [];
    while (!this.take(']')) {
      const first = this.classItem();
      if (this.peek !== '-' || this.text[this.at + 1] === ']') {
        ranges.push(...first);
        continue;
      }
      this.at += 1;
      const last = this.classItem();
      const [from, to] = [soleChar(first), soleChar(last)];
      if (from === null || to === null || to < from) throw this.bad('a bad range in a class');
      ranges.push([from, to]);
    }
    const set = charSet(ranges);
    return negated ? complement(set) : intersect(set, ANY_CHAR);
  }

  private classItem(): CharSet {
    const character = this.next('a class without an end');
    return character === '\\' ? this.escape(true) : single(character.codePointAt(0)!);
  }

  private escape(inClass: boolean): CharSet {
    const kind = this.next('a pattern that ends in a backslash');
    const lower = kind.toLowerCase();
    if (lower in CLASSES) return kind === lower ? CLASSES[lower]! : complement(CLASSES[lower]!);
    if (lower === 'p') return this.property(kind === 'P');
    if (kind in CONTROLS && !(kind === '0' && /^[0-9]$/.test(this.peek))) return single(CONTROLS[kind]!);
    if (kind === 'b' && inClass) return single(8);
    if (lower === 'b') throw unsupported(`${this.where}: word boundaries are not supported.`);
    if (/^[1-9k]$/.test(kind)) throw unsupported(`${this.where}: references to groups are not supported.`);
    if (kind === 'x') return single(this.hex(2));
    if (kind === 'u') return single(this.unicodeEscape());
    if (kind === 'c' && /^[A-Za-z]$/.test(this.peek)) return single(this.next().charCodeAt(0) % 32);
    if (/^[A-Za-z0-9]$/.test(kind)) throw this.bad(`\\${kind} means nothing`);
    return single(kind.codePointAt(0)!);
  }

  private property(negated: boolean): CharSet {
    if (!this.take('{')) throw this.bad('a bad \\p');
    let name = '';
    while (this.at < this.text.length && this.peek !== '}') name += this.next();
    if (!this.take('}') || !/^[\w=]+$/.test(name)) throw this.bad('a bad \\p');
    try {
      const set = unicodeProperty(name);
      return negated ? complement(set) : set;
    } catch {
      throw this.bad(`there is no Unicode property ${name}`);
    }
  }

  private unicodeEscape(): number {
    if (this.take('{')) {
      let digits = '';
      while (/^[0-9A-Fa-f]$/.test(this.peek)) digits += this.next();
      const codePoint = Number.parseInt(digits, 16);
      if (!this.take('}') || !(codePoint <= 0x10ffff)) throw this.bad('a bad \\u');
      return codePoint;
    }
    const unit = this.hex(4);
    const isHigh = unit >= 0xd800 && unit < 0xdc00;
    if (!isHigh || this.peek !== '\\' || this.text[this.at + 1] !== 'u') return unit;
    this.at += 2;
    const low = this.hex(4);
    if (low < 0xdc00 || low > 0xdfff) throw unsupported(`${this.where}: half of a surrogate pair.`);
    return 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
  }

  private hex(count: number): number {
    const digits = this.text.slice(this.at, this.at + count).join('');
    if (!new RegExp(`^[0-9A-Fa-f]{${count}}$`).test(digits)) throw this.bad('a bad hexadecimal escape');
    this.at += count;
    return Number.parseInt(digits, 16);
  }

  private get peek(): string {
    return this.text[this.at] ?? '';
  }

  private next(missing = 'a pattern that ends too early'): string {
    const character = this.text[this.at++];
    if (character === undefined) throw this.bad(missing);
    return character;
  }

  private take(character: string): boolean {
    if (this.peek !== character || character === '') return false;
    this.at += 1;
    return true;
  }

  private get where(): string {
    const shown = this.pattern.length > 60 ? `${this.pattern.slice(0, 60)}…` : this.pattern;
    return `The regular expression ${shown}`;
  }

  private bad(what: string): Error {
    return badGrammar(`${this.where} can't be read at character ${this.at}: ${what}.`);
  }

  private misplacedAnchor(): Error {
    return unsupported(`${this.where}: ^ and $ may only stand at the ends of the pattern and of its alternatives.`);
  }
}

/** A lone surrogate has no UTF-8 and matches nothing. */
function single(codePoint: number): CharSet {
  return codePoint >= 0xd800 && codePoint <= 0xdfff ? [] : [[codePoint, codePoint]];
}

function soleChar(set: CharSet): number | null {
  return set.length === 1 && set[0]![0] === set[0]![1] ? set[0]![0] : null;
}
