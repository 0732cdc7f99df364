import { PagePool } from './page-pool.js';
import { RadixCache, ROOT } from './radix-cache.js';
import type { Sequence } from './sequence.js';

/**
 * The KV pages of all sequences. A page belongs to the prefix cache from the moment the step of its last token is
 * submitted and that token is known, so whatever a sequence has computed outlives it until the room is needed. Steps run
 * in order: a page that is given up while a step that uses it is under way can go to a new owner at once.
 */
export class KvMemory {
  readonly pool: PagePool;
  readonly cache: RadixCache;
  /** Number of pages dropped from the prefix cache to make room. */
  evictions = 0;
  private readonly pageSize: number;
  private readonly sharing: boolean;

  /** @param sharing false: no page enters the prefix cache. */
  constructor(pages: number, pageSize: number, sharing: boolean) {
    this.pool = new PagePool(pages);
    this.cache = new RadixCache(this.pool, pageSize);
    this.pageSize = pageSize;
    this.sharing = sharing;
  }

  /** Pages that a sequence can get without anybody else losing one in use. */
  get available(): number {
    return this.pool.free + this.cache.evictable;
  }

  /** Pages from the prefix cache with which a waiting sequence could start. Changes nothing. */
  match(sequence: Sequence): number[] {
    if (!this.sharing) return [];
    const { tokens } = sequence;
    return this.cache.match(tokens.view(0, tokens.length), this.maxCachedPages(sequence));
  }

  /** Gives a sequence without pages its cached prefix, a result of match(). */
  adopt(sequence: Sequence, path: readonly number[]): void {
    this.cache.lock(path);
    for (const page of path) sequence.pages.push(page);
    sequence.cachedPages = path.length;
    sequence.computed = path.length * this.pageSize;
  }

  /** Makes room for the next `length` tokens of a sequence. @returns false, and changes nothing, when there is none. */
  reserve(sequence: Sequence, length: number): boolean {
    const missing = Math.ceil((sequence.computed + length) / this.pageSize) - sequence.pages.length;
    if (missing > this.available) return false;
    const shortage = missing - this.pool.free;
    if (shortage > 0) {
      this.cache.evict(shortage);
      this.evictions += shortage;
    }
    for (let i = 0; i < missing; i++) sequence.pages.push(this.pool.take());
    return true;
  }

  /**
   * Moves a sequence's newly filled pages of known tokens to the prefix cache. They may be shared although the step that
   * fills them is still under way, for whoever reads them does so in a later step.
   */
  share(sequence: Sequence): void {
    if (!this.sharing) return;
    const { pages, tokens } = sequence;
    const known = Math.min(sequence.computed, tokens.length);
    for (let i = sequence.cachedPages; (i + 1) * this.pageSize <= known; i++) {
      const parent = i === 0 ? ROOT : pages.get(i - 1);
      const own = pages.get(i);
      const page = this.cache.insert(parent, tokens.view(0, tokens.length), i * this.pageSize, own);
      if (page !== own) {
        pages.set(i, page);
        this.pool.release(own);
      }
      sequence.cachedPages = i + 1;
    }
  }

  /** Takes all pages from a sequence; those in the prefix cache stay there, evictable. */
  release(sequence: Sequence): void {
    const { pages } = sequence;
    for (let i = sequence.cachedPages; i < pages.length; i++) this.pool.release(pages.get(i));
    this.cache.unlock(pages.view(0, sequence.cachedPages));
    pages.length = 0;
    sequence.cachedPages = 0;
    sequence.computed = 0;
  }

  /**
   * Number of pages that `waiting` could share with `running`, if the next page that it needs after `path` (its
   * match()) is the very one that `running` computes next; else 0.
   */
  sharedPagesAhead(waiting: Sequence, path: readonly number[], running: Sequence): number {
    const depth = path.length;
    if (!this.sharing || running.cachedPages !== depth) return 0;
    if (depth > 0 && running.pages.get(depth - 1) !== path[depth - 1]) return 0;
    const limit = Math.min(this.maxCachedPages(waiting), Math.floor(running.tokens.length / this.pageSize));
    let token = depth * this.pageSize;
    while (token < limit * this.pageSize && waiting.tokens.get(token) === running.tokens.get(token)) token++;
    const pages = Math.floor(token / this.pageSize);
    return pages > depth ? pages : 0;
  }

  /** Empties the prefix cache; no sequence may hold pages. @throws Error when a page is missing. */
  clear(): void {
    this.checkIdle();
    this.cache.evict(this.cache.evictable);
  }

  /** @throws Error unless every page is free or unused in the prefix cache. */
  checkIdle(): void {
    if (this.cache.evictable === this.cache.size && this.available === this.pool.size) return;
    throw new Error(`${this.pool.size - this.available} of ${this.pool.size} KV pages have leaked`);
  }

  private maxCachedPages(sequence: Sequence): number {
    return Math.floor(sequence.maxCachedTokens / this.pageSize);
  }
}
