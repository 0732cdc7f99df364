import type { ServerResponse } from 'node:http';

/**
 * Server-sent events of one answer. Every event replaces the earlier ones of its index, so while the client reads more
 * slowly than the model writes, only the newest event of each index is kept, and it is rendered only when the
 * socket has room: memory does not grow, and the client still gets the whole text.
 */
export class EventStream {
  /** Indexes with something new to show that the socket had no room for. */
  private readonly waiting = new Set<number>();
  private readonly render: (index: number) => string;
  private readonly response: ServerResponse;
  private isFull = false;
  private lastEvents: string[] | null = null;

  /** @param render the newest event of an index, as JSON. */
  constructor(response: ServerResponse, render: (index: number) => string) {
    this.response = response;
    this.render = render;
    response.on('drain', () => this.drain());
    response.writeHead(200, {
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-cache',
      'x-accel-buffering': 'no',
    });
  }

  /** Something new is to be shown at `index`. */
  update(index: number): void {
    if (this.isFull) this.waiting.add(index);
    else this.write(this.render(index));
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
      this.write(this.render(index));
    }
    if (this.isFull || this.lastEvents === null) return;
    for (const event of this.lastEvents) this.write(event);
    this.lastEvents = null;
    this.response.end();
  }

  private write(json: string): void {
    this.isFull = !this.response.write(`data: ${json}\n\n`);
  }
}
