/** An Int32Array that grows; `view` is free of copies. */
export class IntList {
  private items: Int32Array;
  length = 0;

  constructor(capacity: number) {
    this.items = new Int32Array(capacity);
  }

  get(index: number): number {
    return this.items[index]!;
  }

  set(index: number, value: number): void {
    this.items[index] = value;
  }

  push(value: number): void {
    if (this.length === this.items.length) {
      const grown = new Int32Array(2 * this.items.length + 8);
      grown.set(this.items);
      this.items = grown;
    }
    this.items[this.length++] = value;
  }

  /** Elements from … to-1. Valid until the list changes. */
  view(from: number, to: number): Int32Array {
    return this.items.subarray(from, to);
  }
}
