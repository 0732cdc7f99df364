/** What a detokenizer must know about tokens. */
export interface TokenPieces {
  /** Bytes of a token; none for an id that the tokenizer doesn't know. */
  bytes(id: number): Uint8Array;
  /** Text of a token whose bytes neither begin nor end inside a character, else null. */
  wholeText(id: number): string | null;
  isSpecial(id: number): boolean;
}

const NOTHING = new Uint8Array(0);
// A byte order mark is text like any other; bytes that are no UTF-8 become U+FFFD, one per maximal invalid run, so
// that decoding in pieces cut between characters or such runs equals decoding in one go.
const decoder = new TextDecoder('utf-8', { ignoreBOM: true });

export function decodeUtf8(bytes: Uint8Array): string {
  return decoder.decode(bytes);
}

/** Number of bytes, 0 to 3, at the end of `bytes` that may be the beginning of a character still to come. */
export function incompleteTail(bytes: Uint8Array): number {
  const end = bytes.length;
  for (let back = 1; back <= 3 && back <= end; ++back) {
    const byte = bytes[end - back]!;
    if (byte >= 0x80 && byte < 0xc0) continue;
    const length =
      byte >= 0xf0 && byte < 0xf5 ? 4 : byte >= 0xe0 && byte < 0xf0 ? 3 : byte >= 0xc2 && byte < 0xe0 ? 2 : 1;
    return length > back && secondByteFits(byte, back > 1 ? bytes[end - back + 1]! : null) ? back : 0;
  }
  return 0;
}

/** Overlong forms, surrogates and code points above U+10FFFF are known to be invalid at their second byte. */
function secondByteFits(lead: number, second: number | null): boolean {
  if (second === null) return true;
  if (lead === 0xe0) return second >= 0xa0;
  if (lead === 0xed) return second < 0xa0;
  if (lead === 0xf0) return second >= 0x90;
  if (lead === 0xf4) return second < 0x90;
  return true;
}

/**
 * Turns a growing sequence of tokens into text, in constant time per token. The pieces that `push` returns and the one
 * of `finish`, joined, equal the text of the whole sequence; no piece ends inside a character.
 */
export class IncrementalDetokenizer {
  /** Bytes of a character that isn't complete, at most 3. */
  private pending: Uint8Array = NOTHING;

  constructor(
    private readonly pieces: TokenPieces,
    private readonly skipSpecialTokens: boolean,
  ) {}

  /** Text that `id` completes; empty when it ends inside a character or is a special token that is skipped. */
  push(id: number): string {
    if (this.skipSpecialTokens && this.pieces.isSpecial(id)) return '';
    if (this.pending.length === 0) {
      const text = this.pieces.wholeText(id);
      if (text !== null) return text;
    }
    const bytes = Buffer.concat([this.pending, this.pieces.bytes(id)]);
    const complete = bytes.length - incompleteTail(bytes);
    this.pending = bytes.subarray(complete);
    return decodeUtf8(bytes.subarray(0, complete));
  }

  /** U+FFFD for a character that was begun and never completed, else nothing. */
  finish(): string {
    const text = decodeUtf8(this.pending);
    this.pending = NOTHING;
    return text;
  }
}
