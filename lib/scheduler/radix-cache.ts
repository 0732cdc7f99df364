import type { PagePool } from './page-pool.js';

/** The parent of first pages. */
export const ROOT = -1;

/**
 * A prefix tree over token ids whose nodes are full KV pages: a page's place says which tokens it holds and which
 * precede them. The edges live in one map, (parent page, tokens of the page) → page, so there is nothing to split.
 *
 * A sequence that uses a page locks it together with all pages above it. Pages without a lock stay cached and form a
 * list in the order in which they were given up, the logical clock of eviction. A path is given up deepest page first,
 * hence a page always stands behind its descendants, and the head of the list is a leaf: the least recently used.
 */
export class RadixCache {
  private readonly pool: PagePool;
  private readonly pageSize: number;
  private readonly children = new Map<string, number>();
  /** Key of each page's edge; null for a page that is not in the tree. */
  private readonly edges: (string | null)[];
  private readonly locks: Int32Array;
  /** Ring of unlocked pages; the entry past the last page is its sentinel. */
  private readonly next: Int32Array;
  private readonly previous: Int32Array;
  private unlocked = 0;
  private readonly keyIds: Int32Array;
  private readonly keyBytes: Buffer;

  /** @param pool owns the pages that the tree doesn't hold. */
  constructor(pool: PagePool, pageSize: number) {
    this.pool = pool;
    this.pageSize = pageSize;
    this.edges = new Array<string | null>(pool.size).fill(null);
    this.locks = new Int32Array(pool.size);
    this.next = new Int32Array(pool.size + 1).fill(pool.size);
    this.previous = new Int32Array(pool.size + 1).fill(pool.size);
    this.keyIds = new Int32Array(1 + pageSize);
    this.keyBytes = Buffer.from(this.keyIds.buffer);
  }

  /** Number of pages in the tree. */
  get size(): number {
    return this.children.size;
  }

  /** Number of pages in the tree that nobody uses. */
  get evictable(): number {
    return this.unlocked;
  }

  /** Pages of the longest cached prefix of `tokens`, at most `maxPages`, in order. Changes nothing. */
  match(tokens: Int32Array, maxPages: number): number[] {
    const path: number[] = [];
    let parent = ROOT;
    while (path.length < maxPages) {
      const page = this.children.get(this.key(parent, tokens, path.length * this.pageSize));
      if (page === undefined) break;
      path.push(page);
      parent = page;
    }
    return path;
  }

  /** Number of pages of `path`, a result of match(), that locking it would make unevictable. */
  countUnlocked(path: readonly number[]): number {
    let count = 0;
    // An unlocked page has no locked descendant, so the unlocked ones are the end of the path.
    while (count < path.length && this.locks[path[path.length - 1 - count]!] === 0) count++;
    return count;
  }

  /** Protects the pages of a path from the root, such as a result of match(), from eviction. */
  lock(path: ArrayLike<number>): void {
    for (let i = 0; i < path.length; i++) this.lockPage(path[i]!);
  }

  /** Gives up a path that was locked. Its pages stay cached until the room is needed. */
  unlock(path: ArrayLike<number>): void {
    for (let i = path.length - 1; i >= 0; i--) this.unlockPage(path[i]!);
  }

  /**
   * Adds the page that holds tokens[start … start+pageSize-1] below `parent` (ROOT for the first), which the caller
   * holds, and locks it for the caller.
   * @returns the page to use from now on: `page`, which now belongs to the tree, or the tree's own page of the same
   * content (bit for bit); `page` then stays the caller's.
   */
  insert(parent: number, tokens: Int32Array, start: number, page: number): number {
    const key = this.key(parent, tokens, start);
    const cached = this.children.get(key);
    if (cached !== undefined) {
      this.lockPage(cached);
      return cached;
    }
    this.children.set(key, page);
    this.edges[page] = key;
    this.locks[page] = 1;
    return page;
  }

  /** Returns the `count` least recently used pages to the pool. @throws Error when fewer are evictable. */
  evict(count: number): void {
    if (count > this.unlocked) throw new Error(`cannot evict ${count} pages: ${this.unlocked} are unused`);
    for (let i = 0; i < count; i++) {
      const page = this.next[this.pool.size]!;
      this.unlink(page);
      this.children.delete(this.edges[page]!);
      this.edges[page] = null;
      this.pool.release(page);
    }
  }

  private key(parent: number, tokens: Int32Array, start: number): string {
    this.keyIds[0] = parent;
    for (let i = 0; i < this.pageSize; i++) this.keyIds[i + 1] = tokens[start + i]!;
    return this.keyBytes.toString('latin1');
  }

  private lockPage(page: number): void {
    if (this.edges[page] === null) throw new Error(`page ${page} is not in the prefix cache`);
    if (this.locks[page] === 0) this.unlink(page);
    this.locks[page]! += 1;
  }

  private unlockPage(page: number): void {
    if (this.locks[page] === 0) throw new Error(`page ${page} was unlocked, but nobody holds it`);
    this.locks[page]! -= 1;
    if (this.locks[page] === 0) this.append(page);
  }

  private append(page: number): void {
    const end = this.pool.size;
    const last = this.previous[end]!;
    this.next[last] = page;
    this.previous[page] = last;
    this.next[page] = end;
    this.previous[end] = page;
    this.unlocked++;
  }

  private unlink(page: number): void {
    this.next[this.previous[page]!] = this.next[page]!;
    this.previous[this.next[page]!] = this.previous[page]!;
    this.unlocked--;
  }
}
