import type { KeyObject } from 'node:crypto';

import { NUMERIC_CONTRACT } from '../protocol/contract.js';
import { modelDigests, type ModelSource } from '../receipt/model-digests.js';
import { type Answered, makeReceipt, type ModelDigests } from '../receipt/receipt.js';
import { signReceipt } from '../receipt/signature.js';

/** Writes the receipts of a server. */
export class Receipts {
  private digests: ModelDigests | null = null;
  private reading: Promise<void> | null = null;

  /** @param source in local folders. @param signingKey null: receipts are not signed. */
  constructor(
    private readonly source: ModelSource,
    private readonly signingKey: KeyObject | null,
  ) {}

  /**
   * Resolves when receipts can be written. The first call reads the model's files, in a thread; servers that nobody
   * asks for receipts never do. @throws DetinferError when they can't be read; the next call tries again.
   */
  prepare(): Promise<void> {
    return (this.reading ??= this.read());
  }

  /** A receipt as JSON. Only after prepare(). */
  write(answered: Answered): string {
    const receipt = makeReceipt(NUMERIC_CONTRACT, this.digests!, answered);
    return JSON.stringify(this.signingKey === null ? receipt : signReceipt(receipt, this.signingKey));
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
