import { EventEmitter } from 'node:events';
import type { ServerResponse } from 'node:http';
import { beforeEach, describe, expect, test } from '@jest/globals';
import { EventStream } from '../../../lib/server/event-stream.js';

/** A response whose socket has room for `room` writes until it drains. */
class FakeResponse extends EventEmitter {
  chunkedEncoding = false;
  readonly written: string[] = [];
  ending: string | null = null;
  room = Infinity;

  writeHead(): void {}

  write(text: string): boolean {
    this.written.push(text);
    return --this.room > 0;
  }

  end(text: string): void {
    this.ending = text;
  }

  drain(room: number): void {
    this.room = room;
    this.emit('drain');
  }
}

let response: FakeResponse;
/** What is new of each index. */
let state: (string | null)[];
let stream: EventStream;
beforeEach(() => {
  response = new FakeResponse();
  state = ['a1', 'b1', 'c1'];
  stream = new EventStream(response as unknown as ServerResponse, (index) => {
    const news = state[index] ?? null;
    state[index] = null;
    return news === null ? [] : [news];
  });
});

describe('EventStream', () => {
  test('writes at once while there is room', () => {
    stream.update(1);
    stream.update(0);
    stream.end('[DONE]');
    expect(response.written).toEqual(['data: b1\n\n', 'data: a1\n\n']);
    expect(response.ending).toBe('data: [DONE]\n\n');
  });

  test('without room it waits, then says what is new by that time, as far as there is room again', () => {
    response.room = 1;
    for (const index of [0, 1, 2]) stream.update(index);
    expect(response.written).toEqual(['data: a1\n\n']);
    state = [null, 'b2', 'c2'];
    stream.update(1);
    stream.end('[DONE]');
    response.drain(1);
    expect(response.written.slice(1)).toEqual(['data: b2\n\n']);
    expect(response.ending).toBeNull();
    response.drain(1);
    expect(response.written.slice(2)).toEqual(['data: c2\n\n']);
    expect(response.ending).toBeNull();
    response.drain(1);
    expect(response.ending).toBe('data: [DONE]\n\n');
    expect(response.written).toHaveLength(3);
  });

  test('nothing new is no chunk: an empty one would end the body', () => {
    stream.update(0);
    stream.update(0);
    expect(response.written).toEqual(['data: a1\n\n']);
  });
});
