import { compileGrammar } from '../grammar/compile.js';
import { singleBytes, type TokenTable } from '../grammar/token-trie.js';
import { DetinferError } from '../protocol/errors.js';
import type { GrammarSpec } from '../protocol/sampling.js';

const MAX_REMEMBERED = 1024;

/** Tells whether grammars are good, before a request runs. The worker compiles them once more for itself. */
export class GrammarCheck {
  private readonly good = new Set<string>();
  private bytes: boolean[] | null = null;

  constructor(private readonly readTable: () => TokenTable) {}

  /**
   * @throws DetinferError INVALID_REQUEST for a grammar that is wrong, UNSUPPORTED for one that can't be enforced
   * exactly or that the model has no tokens for.
   */
  check(spec: GrammarSpec): void {
    const key = `${spec.kind} ${spec.text}`;
    if (this.good.has(key)) return;
    const used = compileGrammar(spec).usedBytes();
    this.bytes ??= singleBytes(this.readTable());
    // With a token for every byte there is always one that goes on.
    const missing = used.findIndex((isUsed, byte) => isUsed && !this.bytes![byte]);
    if (missing >= 0) {
      const name = `0x${missing.toString(16).padStart(2, '0')}`;
      throw new DetinferError('UNSUPPORTED', `The grammar needs the byte ${name}, which is no token of this model.`);
    }
    if (this.good.size >= MAX_REMEMBERED) this.good.clear();
    this.good.add(key);
  }
}
