/** A replica that could take a request. */
export interface Candidate {
  index: number;
  /** Requests that it has. */
  load: number;
}

/** A replica may have this many requests more than half again as many as the idlest one before prefixes count less. */
const TOLERATED_LOAD = 8;

/**
 * Chooses replicas for prompts: the one that was sent the longest prefix of a prompt, for it probably has that in its
 * cache, or else the least loaded. The choice depends on the order of its calls alone.
 */
export class PrefixRouter {
  private readonly pageSize: number;
  private readonly capacity: number;
  /** For each replica the pages that it was sent, least recently first, each as a hash of all tokens up to its end. */
  private readonly pages: Set<number>[];

  /** @param capacity pages that a replica's cache holds. */
  constructor(replicas: number, pageSize: number, capacity: number) {
    this.pageSize = pageSize;
    this.capacity = capacity;
    this.pages = Array.from({ length: replicas }, () => new Set());
  }

  /** @param candidates at least one. @returns the index of the chosen one, which is taken to get the prompt. */
  choose(tokens: readonly number[], candidates: readonly Candidate[]): number {
    if (this.pages.length === 1) return 0;
    const hashes = this.hashesOf(tokens);
    const least = Math.min(...candidates.map(({ load }) => load));
    const ranked = candidates
      .filter(({ load }) => load <= 1.5 * least + TOLERATED_LOAD)
      .map(({ index, load }) => ({ index, load, known: this.knownPages(index, hashes) }))
      .sort((a, b) => b.known - a.known || a.load - b.load || a.index - b.index);
    const { index } = ranked[0]!;
    this.record(index, hashes);
    return index;
  }

  /** The cache of a replica is empty. */
  forget(index: number): void {
    this.pages[index]!.clear();
  }

  private knownPages(index: number, hashes: number[]): number {
    const pages = this.pages[index]!;
    const missing = hashes.findIndex((hash) => !pages.has(hash));
    return missing < 0 ? hashes.length : missing;
  }

  private record(index: number, hashes: number[]): void {
    const pages = this.pages[index]!;
    // Later pages first: what is dropped first must be the end of a prefix, not its beginning.
    for (const hash of [...hashes].reverse()) {
      pages.delete(hash);
      pages.add(hash);
    }
    for (const hash of pages) {
      if (pages.size <= this.capacity) break;
      pages.delete(hash);
    }
  }

  /** FNV-1a over the tokens, read at the end of each whole page. A collision only costs a cache hit. */
  private hashesOf(tokens: readonly number[]): number[] {
    const hashes: number[] = [];
    let hash = 0x811c9dc5;
    for (let i = 0; i < tokens.length; i++) {
      hash = Math.imul(hash ^ tokens[i]!, 0x01000193) >>> 0;
      if ((i + 1) % this.pageSize === 0) hashes.push(hash);
    }
    return hashes;
  }
}
