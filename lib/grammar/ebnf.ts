import { ANY_CHAR, charSet, type CharSet, complement, intersect } from './char-set.js';
import { badGrammar, unsupported } from './errors.js';
import { altOf, chars, EMPTY, type Expr, literal, ref, repeat, type Rules, seqOf } from './expr.js';

const ROOT = 'root';
const MAX_REPEAT = 10_000;
const MAX_DEPTH = 200;
const ESCAPES: Record<string, string> = { n: '\n', r: '\r', t: '\t', v: '\v', f: '\f', b: '\b', a: '\x07', 0: '\0' };

/**
 * A grammar in the EBNF of XGrammar and llama.cpp: rules `name ::= …` of which `root` is the first to match, with
 * "literals", [character classes], (groups), | and the repetitions * + ? {n} {n,} {n,m}; # begins a comment.
 * @throws DetinferError INVALID_REQUEST for bad syntax.
 */
export function ebnfRules(text: string): Rules {
  return new EbnfParser(text).parse();
}

class EbnfParser {
  private readonly text: string[];
  private readonly rules = new Map<string, Expr>();
  /** Where each name stands first. */
  private readonly mentioned = new Map<string, number>();
  private at = 0;
  private depth = 0;

  constructor(text: string) {
    this.text = Array.from(text);
  }

  parse(): Rules {
    this.skipBlank();
    while (this.at < this.text.length) {
      const name = this.name();
      if (name === null) throw this.bad('a rule must begin with its name');
      if (!this.takeSign('::=')) throw this.bad(`::= must follow the name ${name}`);
      if (this.rules.has(name)) throw this.bad(`the rule ${name} is defined twice`);
      this.rules.set(name, this.alternatives());
    }
    if (!this.rules.has(ROOT)) throw badGrammar(`The EBNF grammar has no rule ${ROOT}, where it would start.`);
    for (const [name, at] of this.mentioned) {
      if (this.rules.has(name)) continue;
      throw badGrammar(`The EBNF grammar has no rule ${name}, which line ${this.line(at)} mentions.`);
    }
    return { root: ROOT, rules: this.rules };
  }

  private alternatives(): Expr {
    const items = [this.sequence()];
    while (this.takeSign('|')) items.push(this.sequence());
    return altOf(items);
  }

  private sequence(): Expr {
    const items: Expr[] = [];
    for (;;) {
      const item = this.repeated();
      if (item === null) return items.length === 0 ? EMPTY : seqOf(items);
      items.push(item);
    }
  }

  private repeated(): Expr | null {
    let item = this.atom();
    if (item === null) return null;
    for (;;) {
      if (this.takeSign('*')) item = repeat(item, 0, null);
      else if (this.takeSign('+')) item = repeat(item, 1, null);
      else if (this.takeSign('?')) item = repeat(item, 0, 1);
      else if (this.takeSign('{')) item = repeat(item, ...this.counts());
      else return item;
    }
  }

  private counts(): [min: number, max: number | null] {
    const min = this.count();
    let max: number | null = min;
    if (this.takeSign(',')) max = this.peek === '}' ? null : this.count();
    if (!this.takeSign('}') || (max !== null && max < min)) throw this.bad('a bad repetition');
    if (Math.max(min, max ?? 0) > MAX_REPEAT)
      throw unsupported(`An EBNF grammar may repeat at most ${MAX_REPEAT} times.`);
    return [min, max];
  }

  private count(): number {
    let digits = '';
    while (/^[0-9]$/.test(this.peek)) digits += this.text[this.at++]!;
    this.skipBlank();
    if (digits === '') throw this.bad('a number is missing in a repetition');
    return Number(digits);
  }

  /** null where neither a literal, a class, a group nor the name of a rule stands. */
  private atom(): Expr | null {
    if (this.peek === '"') return this.quoted();
    if (this.peek === '[') return this.charClass();
    if (this.takeSign('(')) return this.group();
    const start = this.at;
    const name = this.name();
    if (name === null) return null;
    // It may be the next rule that begins here.
    if (this.text.slice(this.at, this.at + 3).join('') === '::=') {
      this.at = start;
      return null;
    }
    if (!this.mentioned.has(name)) this.mentioned.set(name, start);
    return ref(name);
  }

  private group(): Expr {
    if (this.peek === '=') throw unsupported('Look-ahead in an EBNF grammar is not supported.');
    if (++this.depth > MAX_DEPTH) throw unsupported(`Groups of an EBNF grammar may nest ${MAX_DEPTH} deep.`);
    const expr = this.alternatives();
    if (!this.takeSign(')')) throw this.bad(') is missing');
    this.depth -= 1;
    return expr;
  }

  private quoted(): Expr {
    this.at += 1;
    let text = '';
    while (this.peek !== '"') text += this.character('"');
    this.at += 1;
    this.skipBlank();
    return literal(text);
  }

  private charClass(): Expr {
    this.at += 1;
    const negated = this.peek === '^';
    if (negated) this.at += 1;
    const ranges: [number, number][] = [];
    while (this.peek !== ']') {
      const first = this.character(']').codePointAt(0)!;
      let last = first;
      if (this.peek === '-' && this.text[this.at + 1] !== ']') {
        this.at += 1;
        last = this.character(']').codePointAt(0)!;
      }
      if (last < first) throw this.bad('a bad range in a character class');
      ranges.push([first, last]);
    }
    this.at += 1;
    this.skipBlank();
    const set: CharSet = charSet(ranges);
    return chars(negated ? complement(set) : intersect(set, ANY_CHAR));
  }

  /** One character of a literal or class, escaped or not. */
  private character(end: string): string {
    const character = this.text[this.at++];
    if (character === undefined || character === '\n') throw this.bad(`${end} is missing`);
    if (character !== '\\') return character;
    const kind = this.text[this.at++] ?? '';
    const length = { x: 2, u: 4, U: 8 }[kind];
    if (length === undefined) {
      if (kind in ESCAPES) return ESCAPES[kind]!;
      if (kind === '' || /^[A-Za-z0-9\n]$/.test(kind)) throw this.bad(`the escape \\${kind} means nothing`);
      return kind;
    }
    const digits = this.text.slice(this.at, this.at + length).join('');
    const codePoint = Number.parseInt(digits, 16);
    if (!new RegExp(`^[0-9A-Fa-f]{${length}}$`).test(digits) || codePoint > 0x10ffff) throw this.bad('a bad escape');
    if (codePoint >= 0xd800 && codePoint <= 0xdfff) throw this.bad('half of a surrogate pair, which is no character');
    this.at += length;
    return String.fromCodePoint(codePoint);
  }

  private name(): string | null {
    let name = '';
    while (/^[A-Za-z0-9_.-]$/.test(this.peek)) name += this.text[this.at++]!;
    if (name === '') return null;
    this.skipBlank();
    return name;
  }

  private takeSign(sign: string): boolean {
    if (this.text.slice(this.at, this.at + sign.length).join('') !== sign) return false;
    this.at += sign.length;
    this.skipBlank();
    return true;
  }

  private skipBlank(): void {
    for (;;) {
      if (this.peek === '#') {
        const end = this.text.indexOf('\n', this.at);
        this.at = end < 0 ? this.text.length : end;
      }
      if (!/^\s$/.test(this.peek)) return;
      this.at += 1;
    }
  }

  private get peek(): string {
    return this.text[this.at] ?? '';
  }

  private line(at: number): number {
    return this.text.slice(0, at).filter((character) => character === '\n').length + 1;
  }

  private bad(what: string): Error {
    return badGrammar(`The EBNF grammar can't be read at line ${this.line(this.at)}: ${what}.`);
  }
}
