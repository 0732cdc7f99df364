import { Machine, type State } from './machine.js';
import type { Network } from './network.js';
import type { TokenTable, TokenTrie } from './token-trie.js';

/** Masks of one grammar that are kept; more are computed anew when they are needed again. */
const MAX_MASK_BYTES = 64 * 1024 * 1024;

/** A compiled grammar over a vocabulary, for any number of sequences. */
export class TokenGrammar {
  private readonly machine: Machine;
  private masked: State[] = [];

  constructor(
    network: Network,
    private readonly table: TokenTable,
    private readonly trie: TokenTrie,
  ) {
    this.machine = new Machine(network);
  }

  /** @param stopIds tokens that may end the text where the grammar may end. */
  matcher(stopIds: Iterable<number>): GrammarMatcher {
    return new GrammarMatcher(this, this.machine.start, [...stopIds]);
  }

  /** The state after a token. @throws Error for one that the grammar does not allow. */
  advance(state: State, token: number): State {
    let next: State | null = state;
    for (const byte of this.table[token] ?? []) next = next && this.machine.step(next, byte);
    if (next === null || !this.table[token]?.length) throw new Error(`the grammar does not allow token ${token}`);
    return next;
  }

  /** The tokens that may follow a state. The caller must not write to it. */
  mask(state: State): Uint32Array {
    if (state.mask) return state.mask;
    if ((this.masked.length + 1) * this.trie.words * 4 > MAX_MASK_BYTES) {
      for (const old of this.masked) old.mask = null;
      this.masked = [];
    }
    this.masked.push(state);
    return (state.mask = this.trie.mask(this.machine, state));
  }
}

/** One sequence's way through a grammar. It depends on the tokens so far alone. */
export class GrammarMatcher {
  constructor(
    private readonly grammar: TokenGrammar,
    private state: State,
    private readonly stopIds: readonly number[],
  ) {}

  /** Takes an output token in; one that ends the text changes nothing. */
  advance(token: number): void {
    if (!this.stopIds.includes(token)) this.state = this.grammar.advance(this.state, token);
  }

  /**
   * The tokens that may come next: those whose bytes the grammar allows and, where it may end, the stop ids. At least
   * one, if every byte of the grammar is a token.
   * @param noStop leaves the stop ids out, unless nothing else is left.
   */
  allowed(noStop: boolean): Uint32Array {
    const mask = this.grammar.mask(this.state).slice();
    const isComplete = mask.every((word) => word === 0);
    if (noStop && !isComplete) this.setStops(mask, false);
    else if (this.state.isAccepting) this.setStops(mask, true);
    // A stop id may have been the only way on.
    return noStop && mask.every((word) => word === 0) ? this.allowed(false) : mask;
  }

  private setStops(mask: Uint32Array, isAllowed: boolean): void {
    for (const id of this.stopIds) {
      const bit = 1 << (id & 31);
      if (isAllowed) mask[id >>> 5]! |= bit;
      else mask[id >>> 5]! &= ~bit;
    }
  }
}
