import type { KeyObject } from 'node:crypto';

import { NUMERIC_CONTRACT } from '../protocol/contract.js';
import { modelDigests, type ModelSource } from '../receipt/model-digests.js';
import { type Answered, makeReceipt, type ModelDigests, type Receipt } from '../receipt/receipt.js';
import { signReceipt } from '../receipt/signature.js';

/** Writes the receipts of a server. */
export class Receipts {
  private digests: ModelDigests | null = null;
  private reading: Promise<void> | null = null;
  /** Updates of the weights under way: one, and others that are about to be refused. */
  private readonly updating = new Set<Promise<void>>();

  /** @param source in local folders. @param signingKey null: receipts are not signed. */
  constructor(
    private source: ModelSource,
    private readonly signingKey: KeyObject | null,
  ) {}

  /**
   * Resolves when receipts can be written. The first call reads the model's files, in a thread; servers that nobody
   * asks for receipts never do. @throws DetinferError when they can't be read; the next call tries again.
   */
  async prepare(): Promise<void> {
    while (this.updating.size > 0) await Promise.all(this.updating);
    await (this.reading ??= this.read());
  }

  /**
   * Runs `update`, which serves the weights of another folder, and names those from then on. Requests that wait for it
   * are computed with the new weights, so the digests are there when it ends.
   * @throws DetinferError when the new files can't be read, and what `update` throws; the old weights are named then.
   */
  async during<T>(modelPath: string, update: () => Promise<T>): Promise<T> {
    const source = { ...this.source, modelPath };
    let digests: ModelDigests | null = null;
    if (this.reading !== null) {
      // Behind the old ones, so that these don't come later and take the place of the new.
      await this.reading.catch(nothing);
      digests = await modelDigests(source);
    }
    const updated = update();
    const ended = updated.then(nothing, nothing);
    // The first receipt may be asked for meanwhile.
    if (digests === null) this.updating.add(ended);
    try {
      const result = await updated;
      this.source = source;
      this.digests = digests;
      return result;
    } finally {
      this.updating.delete(ended);
    }
  }

  /** Only after prepare(). */
  write(answered: Answered): Receipt {
    const receipt = makeReceipt(NUMERIC_CONTRACT, this.digests!, answered);
    return this.signingKey === null ? receipt : signReceipt(receipt, this.signingKey);
  }

  private async read(): Promise<void> {
    try {
      this.digests = await modelDigests(this.source);
    } catch (error) {
      this.reading = null;
      throw error;
    }
  }
}

function nothing(): void {}
