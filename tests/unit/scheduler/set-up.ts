import { expect } from '@jest/globals';
import { Grammars } from '../../../lib/grammar/grammars.js';
import type { WorkerRequest } from '../../../lib/protocol/messages.js';
import { Scheduler, type SchedulerOptions } from '../../../lib/scheduler/scheduler.js';
import { FakeEngine } from './fake-engine.js';
import { FAKE_TOKENS } from './fake-model.js';
import { referenceAnswer } from './reference-answer.js';
import type { Collector } from './requests.js';

const OPTIONS: SchedulerOptions = {
  chunkedPrefillSize: 64,
  maxPrefillTokens: 128,
  maxRunningRequests: 64,
  disableRadixCache: false,
  overlap: false,
};

const GRAMMARS = new Grammars(() => FAKE_TOKENS);

/** A scheduler on a fake engine with pages of 16 tokens. */
export function setUp(given: Partial<SchedulerOptions> & { pages?: number; contextLength?: number } = {}): {
  engine: FakeEngine;
  scheduler: Scheduler;
} {
  const { pages = 100, contextLength = 1000, ...options } = given;
  const engine = new FakeEngine(16, pages, contextLength);
  return { engine, scheduler: new Scheduler(engine, { ...OPTIONS, ...options }, GRAMMARS) };
}

/** `length` token ids; different salts differ from the first token on. */
export function prompt(length: number, salt = 0): number[] {
  return Array.from({ length }, (_, i) => (salt + i * i + Math.floor(i / 7)) % 24);
}

/** Tokens of each slice of each step. */
export const shape = (engine: FakeEngine): number[][] =>
  engine.forwards.map((slices) => slices.map(({ tokens }) => tokens.length));

/** Every request ended with the answer that it gets alone. */
export function expectAnswers(collector: Collector, requests: WorkerRequest[], lengthLimit = 1000): void {
  for (const request of requests) {
    const expected = referenceAnswer(request, lengthLimit);
    const actual = collector.get(request.id);
    expect(actual.tokens).toEqual(expected.tokens);
    expect(actual.finish).toEqual(expected.finish);
    expect(actual.logprobs).toEqual(expected.logprobs);
    expect(actual.prompt!.logprobs).toEqual(expected.promptLogprobs);
  }
}
