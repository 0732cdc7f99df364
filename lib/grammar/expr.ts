import { type CharSet, charsOf } from './char-set.js';

/** A grammar's expression. What it matches is text; the automaton turns characters into their UTF-8 bytes. */
export type Expr =
  | { type: 'chars'; set: CharSet }
  | { type: 'seq'; items: Expr[] }
  /** None of no items: matches nothing. */
  | { type: 'alt'; items: Expr[] }
  /** max null: no limit. */
  | { type: 'repeat'; item: Expr; min: number; max: number | null }
  | { type: 'ref'; rule: string };

/** Expressions by name. Rules may refer to each other, and to themselves after a character at least. */
export interface Rules {
  root: string;
  rules: Map<string, Expr>;
}

export const EMPTY: Expr = { type: 'seq', items: [] };
export const NOTHING: Expr = { type: 'alt', items: [] };

export function chars(set: CharSet): Expr {
  return { type: 'chars', set };
}

export function literal(text: string): Expr {
  return seqOf(Array.from(text, (character) => chars(charsOf(character))));
}

export function seq(...items: Expr[]): Expr {
  return seqOf(items);
}

export function alt(...items: Expr[]): Expr {
  return altOf(items);
}

/** Of as many items as there are: a hundred thousand arguments would not fit onto the stack. */
export function seqOf(items: Expr[]): Expr {
  return items.length === 1 ? items[0]! : { type: 'seq', items };
}

export function altOf(items: Expr[]): Expr {
  return items.length === 1 ? items[0]! : { type: 'alt', items };
}

export function repeat(item: Expr, min: number, max: number | null): Expr {
  return { type: 'repeat', item, min, max };
}

export function optional(item: Expr): Expr {
  return repeat(item, 0, 1);
}

export function ref(rule: string): Expr {
  return { type: 'ref', rule };
}

/** The expression with every set of characters replaced. */
export function mapChars(expr: Expr, replace: (set: CharSet) => Expr): Expr {
  switch (expr.type) {
    case 'chars':
      return replace(expr.set);
    case 'seq':
    case 'alt':
      return { type: expr.type, items: expr.items.map((item) => mapChars(item, replace)) };
    case 'repeat':
      return { ...expr, item: mapChars(expr.item, replace) };
    case 'ref':
      return expr;
  }
}
