import type { GrammarSpec } from '../protocol/sampling.js';
import { ebnfRules } from './ebnf.js';
import { unsupported } from './errors.js';
import type { Rules } from './expr.js';
import { jsonSchemaRules } from './json-schema/compile.js';
import { Network } from './network.js';
import { regexExpr } from './regex.js';

/** UTF-16 units. More would take long to read, even where it comes to few places: comments, classes, say. */
const MAX_TEXT = 512 * 1024;

/**
 * Compiles a grammar.
 * @throws DetinferError INVALID_REQUEST for one that is wrong, UNSUPPORTED for one that can't be enforced exactly.
 */
export function compileGrammar(spec: GrammarSpec): Network {
  if (spec.text.length > MAX_TEXT) throw unsupported(`The grammar has more than ${MAX_TEXT} characters.`);
  return new Network(rulesOf(spec));
}

function rulesOf({ kind, text }: GrammarSpec): Rules {
  switch (kind) {
    case 'json_schema':
      return jsonSchemaRules(text);
    case 'regex':
      return { root: 'root', rules: new Map([['root', regexExpr(text)]]) };
    case 'ebnf':
      return ebnfRules(text);
  }
}
