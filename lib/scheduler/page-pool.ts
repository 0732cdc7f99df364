/**
 * The KV pages that nobody holds. A page has exactly one owner at a time: the pool, one sequence, or the prefix cache
 * (which counts its users itself). Pages are handed out last in, first out, so that hot memory is used again.
 */
export class PagePool {
  /** Number of pages; their ids are 0 … size-1. */
  readonly size: number;
  private readonly stack: Int32Array;
  private readonly isFree: Uint8Array;
  private freeCount: number;

  constructor(size: number) {
    this.size = size;
    this.freeCount = size;
    this.stack = Int32Array.from({ length: size }, (_, i) => size - 1 - i);
    this.isFree = new Uint8Array(size).fill(1);
  }

  get free(): number {
    return this.freeCount;
  }

  /** Hands out a free page. @throws Error when there is none: callers make room first. */
  take(): number {
    if (this.freeCount === 0) throw new Error('no page is free');
    const page = this.stack[--this.freeCount]!;
    this.isFree[page] = 0;
    return page;
  }

  /** Takes a page back. @throws Error when it is no page or is free already: its owner has lost count. */
  release(page: number): void {
    if (this.isFree[page] !== 0) throw new Error(`page ${page} was released, but nobody holds it`);
    this.isFree[page] = 1;
    this.stack[this.freeCount++] = page;
  }
}
