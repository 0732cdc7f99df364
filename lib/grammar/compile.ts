import type { GrammarSpec } from '../protocol/sampling.js';
import { ebnfRules } from './ebnf.js';
import type { Rules } from './expr.js';
import { jsonSchemaRules } from './json-schema/compile.js';
import { Network } from './network.js';
import { regexExpr } from './regex.js';

/**
 * Compiles a grammar.
 * @throws DetinferError INVALID_REQUEST for one that is wrong, UNSUPPORTED for one that can't be enforced exactly.
 */
export function compileGrammar(spec: GrammarSpec): Network {
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
