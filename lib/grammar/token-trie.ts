import type { Machine, State } from './machine.js';

/** Bytes of every token of a model, by id; null for one that no grammar may draw: special, unknown or without text. */
export type TokenTable = readonly (Uint8Array | null)[];

/** By byte, whether it is a token by itself. */
export function singleBytes(table: TokenTable): boolean[] {
  const single = new Array<boolean>(256).fill(false);
  for (const bytes of table) if (bytes?.length === 1) single[bytes[0]!] = true;
  return single;
}

/** The tokens of a vocabulary as a tree of their bytes, in one list in the order of a walk through it. */
export class TokenTrie {
  /** Words of a mask. */
  readonly words: number;
  private readonly byte: Uint8Array;
  private readonly depth: Uint16Array;
  /** The node after those below this one. */
  private readonly after: Int32Array;
  /** Tokens that end at node i are tokens[first[i]] … tokens[first[i + 1] - 1]. */
  private readonly first: Int32Array;
  private readonly tokens: Int32Array;

  /** @param table of the model's whole vocabulary. */
  constructor(table: TokenTable) {
    this.words = Math.ceil(table.length / 32);
    const ids = [...table.keys()].filter((id) => table[id]?.length);
    // One character per byte: strings are compared much faster than arrays.
    const keys = table.map((bytes) => bytes && Buffer.from(bytes).toString('latin1'));
    ids.sort((a, b) => (keys[a]! < keys[b]! ? -1 : keys[a]! > keys[b]! ? 1 : a - b));
    const byte: number[] = [];
    const depth: number[] = [];
    const ends: number[] = [];
    let previous: Uint8Array = new Uint8Array(0);
    for (const id of ids) {
      const bytes = table[id]!;
      let shared = 0;
      while (shared < previous.length && shared < bytes.length && previous[shared] === bytes[shared]) shared += 1;
      for (let at = shared; at < bytes.length; ++at) {
        byte.push(bytes[at]!);
        depth.push(at);
      }
      // In sorted order a token ends at the newest node, which it shares with those of the same bytes.
      ends.push(byte.length - 1);
      previous = bytes;
    }
    this.byte = Uint8Array.from(byte);
    this.depth = Uint16Array.from(depth);
    this.after = afterSubtrees(depth);
    this.first = firstTokens(ends, byte.length);
    this.tokens = Int32Array.from(ids);
  }

  /** The tokens whose bytes may follow a state, as bits: bit i % 32 of word i / 32 is token i. */
  mask(machine: Machine, state: State): Uint32Array {
    const mask = new Uint32Array(this.words);
    const { byte, depth, after, first, tokens } = this;
    const states: State[] = [state];
    for (let node = 0; node < byte.length;) {
      const level = depth[node]!;
      const state = states[level]!;
      const known = state.next[byte[node]!];
      const next = known === undefined ? machine.step(state, byte[node]!) : known;
      if (next === null) {
        node = after[node]!;
        continue;
      }
      const end = first[node + 1]!;
      for (let i = first[node]!; i < end; ++i) mask[tokens[i]! >>> 5]! |= 1 << (tokens[i]! & 31);
      states[level + 1] = next;
      node += 1;
    }
    return mask;
  }
}

function afterSubtrees(depth: readonly number[]): Int32Array {
  const after = new Int32Array(depth.length);
  const open: number[] = [];
  for (let node = 0; node <= depth.length; ++node) {
    while (open.length > 0 && (node === depth.length || depth[open.at(-1)!]! >= depth[node]!))
      after[open.pop()!] = node;
    open.push(node);
  }
  return after;
}

/** @param ends the node of each token, ascending. */
function firstTokens(ends: readonly number[], nodes: number): Int32Array {
  const first = new Int32Array(nodes + 1);
  let token = 0;
  for (let node = 0; node <= nodes; ++node) {
    while (token < ends.length && ends[token]! < node) token += 1;
    first[node] = token;
  }
  return first;
}
