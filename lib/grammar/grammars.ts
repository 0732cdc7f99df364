import type { GrammarSpec } from '../protocol/sampling.js';
import { compileGrammar } from './compile.js';
import { type GrammarMatcher, TokenGrammar } from './matcher.js';
import { type TokenTable, TokenTrie } from './token-trie.js';

const MAX_GRAMMARS = 64;

/** The compiled grammars of a model. The vocabulary is read when the first one is asked for. */
export class Grammars {
  private vocabulary: { table: TokenTable; trie: TokenTrie } | null = null;
  /** The one that was used last is last. */
  private readonly cache = new Map<string, TokenGrammar>();

  constructor(private readonly readTable: () => TokenTable) {}

  /**
   * A new way through a grammar.
   * @param stopIds tokens that may end the output where the grammar may end.
   * @throws DetinferError INVALID_REQUEST or UNSUPPORTED, as compileGrammar.
   */
  matcher(spec: GrammarSpec, stopIds: Iterable<number>): GrammarMatcher {
    return this.grammar(spec).matcher(stopIds);
  }

  private grammar(spec: GrammarSpec): TokenGrammar {
    const key = `${spec.kind} ${spec.text}`;
    const grammar = this.cache.get(key) ?? this.compile(spec);
    this.cache.delete(key);
    this.cache.set(key, grammar);
    if (this.cache.size > MAX_GRAMMARS) this.cache.delete(this.cache.keys().next().value!);
    return grammar;
  }

  private compile(spec: GrammarSpec): TokenGrammar {
    const network = compileGrammar(spec);
    if (this.vocabulary === null) {
      const table = this.readTable();
      this.vocabulary = { table, trie: new TokenTrie(table) };
    }
    return new TokenGrammar(network, this.vocabulary.table, this.vocabulary.trie);
  }
}
