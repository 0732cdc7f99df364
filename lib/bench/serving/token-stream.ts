import { DetinferError } from '../../protocol/errors.js';

const EVENT_END = Buffer.from('\n\n');
const DONE = Buffer.from('data: [DONE]');
/** Cannot occur within a text: there, its quotes would be escaped. */
const COUNT_KEY = Buffer.from('"completion_tokens":');

/**
 * Counts the tokens of one /generate stream as its bytes arrive. Events carry the whole text so far, so parsing each
 * would cost the square of the length, on a machine that the server may share: only the counter is read, and only in
 * the last event of a chunk.
 */
export class TokenStream {
  #rest: Buffer = Buffer.alloc(0);
  #last: Buffer | null = null;
  #done = false;

  /** Takes the next bytes and returns the number of tokens generated so far. */
  push(chunk: Buffer): number {
    const bytes = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    const end = bytes.lastIndexOf(EVENT_END);
    this.#rest = end < 0 ? bytes : bytes.subarray(end + EVENT_END.length);
    if (end >= 0) this.#takeEvents(bytes.subarray(0, end));
    return this.#last === null ? 0 : completionTokens(this.#last);
  }

  /**
   * The last event of a finished stream, parsed.
   * @throws DetinferError BAD_RESPONSE if the stream broke off or failed.
   */
  finish(): { completionTokens: number } {
    if (this.#last === null || !this.#done) throw new DetinferError('BAD_RESPONSE', 'the stream ended without [DONE]');
    const event = JSON.parse(this.#last.subarray('data:'.length).toString()) as {
      error?: { message?: string };
      meta_info?: { finish_reason?: { type?: string; message?: string } | null; completion_tokens?: number };
    };
    const finish = event.meta_info?.finish_reason;
    if (event.error) throw new DetinferError('BAD_RESPONSE', event.error.message ?? 'an error in the stream');
    if (!finish) throw new DetinferError('BAD_RESPONSE', 'the stream ended before the answer did');
    if (finish.type === 'abort') throw new DetinferError('BAD_RESPONSE', finish.message ?? 'aborted');
    return { completionTokens: event.meta_info?.completion_tokens ?? 0 };
  }

  /** Remembers the last event but [DONE]. */
  #takeEvents(events: Buffer): void {
    let end = events.length;
    let start = startOfEvent(events, end);
    if (DONE.compare(events, start, end) === 0) {
      this.#done = true;
      end = start - EVENT_END.length;
      if (end <= 0) return;
      start = startOfEvent(events, end);
    }
    this.#last = events.subarray(start, end);
  }
}

function startOfEvent(events: Buffer, end: number): number {
  const before = events.subarray(0, end).lastIndexOf(EVENT_END);
  return before < 0 ? 0 : before + EVENT_END.length;
}

/** The number after the last `"completion_tokens":`; meta_info follows the text. */
function completionTokens(event: Buffer): number {
  const at = event.lastIndexOf(COUNT_KEY);
  if (at < 0) return 0;
  let count = 0;
  for (let i = at + COUNT_KEY.length; i < event.length; i++) {
    const digit = (event[i] as number) - 48;
    if (digit === -16 && count === 0) continue; // A space after the colon.
    if (digit < 0 || digit > 9) break;
    count = count * 10 + digit;
  }
  return count;
}
