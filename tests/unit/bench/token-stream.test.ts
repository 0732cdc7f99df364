import { describe, expect, test } from '@jest/globals';
import { TokenStream } from '../../../lib/bench/serving/token-stream.js';

function event(count: number, text: string, finish: object | null = null): string {
  const meta = { completion_tokens: count, finish_reason: finish };
  return `data: ${JSON.stringify({ text, output_ids: [], meta_info: meta })}\n\n`;
}

const END = event(3, 'abc', { type: 'length', length: 3 });

function pushAll(stream: TokenStream, ...chunks: string[]): number[] {
  return chunks.map((chunk) => stream.push(Buffer.from(chunk)));
}

describe('TokenStream', () => {
  test('counts tokens as chunks arrive', () => {
    const stream = new TokenStream();
    expect(pushAll(stream, event(1, 'a'), event(2, 'ab'), `${END}data: [DONE]\n\n`)).toEqual([1, 2, 3]);
    expect(stream.finish()).toEqual({ completionTokens: 3 });
  });

  test('counts what a chunk completes, however chunks are cut', () => {
    const bytes = Buffer.from(`${event(1, 'a')}${event(2, 'ab')}${END}data: [DONE]\n\n`);
    for (let cut = 1; cut < bytes.length; cut++) {
      const stream = new TokenStream();
      stream.push(bytes.subarray(0, cut));
      expect(stream.push(bytes.subarray(cut))).toBe(3);
      expect(stream.finish()).toEqual({ completionTokens: 3 });
    }
  });

  test('is not misled by a text that looks like the counter', () => {
    const stream = new TokenStream();
    const text = '"completion_tokens": 99 "completion_tokens":98';
    expect(pushAll(stream, `data: ${JSON.stringify({ meta_info: { completion_tokens: 7 }, text })}\n\n`)).toEqual([7]);
  });

  test('reads a counter after a space, as Python writes it', () => {
    const stream = new TokenStream();
    expect(pushAll(stream, 'data: {"text": "a", "meta_info": {"completion_tokens": 12, "x": 1}}\n\n')).toEqual([12]);
  });

  test.each([
    ['a stream that breaks off', [event(1, 'a')], 'without [DONE]'],
    ['no event at all', ['data: [DONE]\n\n'], 'without [DONE]'],
    ['an unfinished answer', [event(1, 'a'), 'data: [DONE]\n\n'], 'before the answer did'],
    ['an error', ['data: {"error":{"message":"worker died"}}\n\ndata: [DONE]\n\n'], 'worker died'],
    ['an abort', [`${event(1, 'a', { type: 'abort', message: 'too late' })}data: [DONE]\n\n`], 'too late'],
  ])('reports %s', (_, chunks, message) => {
    const stream = new TokenStream();
    pushAll(stream, ...chunks);
    expect(() => stream.finish()).toThrow(message);
  });
});
