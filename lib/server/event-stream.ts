import type { ServerResponse } from 'node:http';

const LAST_CHUNK = '0\r\n\r\n';

/**
 * Server-sent events of one answer. An index is rendered only when the socket has room, and then to what is new by that
 * time; so while the client reads more slowly than the model writes, it gets fewer events and still the whole text, and
 * memory does not grow.
 */
export class EventStream {
  /** Indexes with something new to show that the socket had no room for. */
  private readonly waiting = new Set<number>();
  private readonly render: (index: number) => string[];
  private readonly response: ServerResponse;
  private readonly isChunked: boolean;
  private isFull = false;
  private lastEvents: string[] | null = null;

  /** @param render what is to be said of an index now, as JSON. */
  constructor(response: ServerResponse, render: (index: number) => string[]) {
    this.response = response;
    this.render = render;
    response.on('drain', () => this.drain());
    response.writeHead(200, {
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-cache',
      'x-accel-buffering': 'no',
    });
    // Node frames a chunk in four writes. A token is a chunk, so it is framed here, to the same bytes, in one. Clients
    // of HTTP/1.0 get no chunks.
    this.isChunked = response.chunkedEncoding;
    response.chunkedEncoding = false;
  }

  /** Something new is to be shown at `index`. */
  update(index: number): void {
    if (this.isFull) this.waiting.add(index);
    else this.show(index);
  }

  /** Sends what waits, then `events`, and closes. */
  end(...events: string[]): void {
    this.lastEvents = events;
    if (!this.isFull) this.drain();
  }

  private drain(): void {
    this.isFull = false;
    for (const index of this.waiting) {
      if (this.isFull) return;
      this.waiting.delete(index);
      this.show(index);
    }
    if (this.isFull || this.lastEvents === null) return;
    this.response.end(this.framed(this.lastEvents) + (this.isChunked ? LAST_CHUNK : ''));
    this.lastEvents = null;
  }

  private show(index: number): void {
    const events = this.render(index);
    // A chunk of nothing would be the last.
    if (events.length > 0) this.isFull = !this.response.write(this.framed(events));
  }

  /** Events as they go over the wire, in one chunk. */
  private framed(events: readonly string[]): string {
    let text = '';
    for (const json of events) text += `data: ${json}\n\n`;
    return this.isChunked ? `${Buffer.byteLength(text).toString(16)}\r\n${text}\r\n` : text;
  }
}
