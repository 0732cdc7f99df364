import type { Answer, LogprobEntry, Prompt } from '../client/generate.js';
import { DetinferError } from '../protocol/errors.js';
import { firstDifference } from './difference.js';
import type { CheckResult, Difference, Origin } from './types.js';

/** What is compared of an answer. null: not compared, and then so for every sample of the set. */
export interface Sample {
  text: string | null;
  /** Ids, of prompt and output if promptLength > 0. */
  ids: number[] | null;
  /** Number of leading ids that belong to the prompt. */
  promptLength: number;
  finishReason: string | null;
  logprobs: (number | null)[] | null;
  /** All other fields, as JSON. Absent: not compared. */
  otherFields?: string;
}

/** The whole output of an answer, with logprobs where they were asked for. */
export function outputSample(answer: Answer, withLogprobs: boolean): Sample {
  if (withLogprobs && answer.outputLogprobs === null) {
    throw new DetinferError('BAD_RESPONSE', 'the server sent no output_token_logprobs although return_logprob was set');
  }
  return {
    text: answer.text,
    ids: answer.outputIds ?? answer.outputLogprobs?.map(idOf) ?? null,
    promptLength: 0,
    finishReason: answer.finishReason,
    logprobs: withLogprobs ? (answer.outputLogprobs?.map(logprobOf) ?? null) : null,
  };
}

/**
 * Prompt and output, with the logprobs of both.
 * @throws DetinferError BAD_RESPONSE unless each token has one; `who` needs them.
 */
export function wholeSample({ inputLogprobs, outputLogprobs, outputIds }: Answer, prompt: Prompt, who: string): Sample {
  if (inputLogprobs === null || outputLogprobs === null) {
    throw incomplete(who, 'input_token_logprobs and output_token_logprobs');
  }
  const ids = [...inputLogprobs, ...outputLogprobs].map(idOf);
  const expected = [...(typeof prompt === 'string' ? inputLogprobs.map(idOf) : prompt), ...(outputIds ?? [])];
  if (outputIds !== null && ids.join() !== expected.join()) {
    throw incomplete(who, 'a logprob for each token of prompt and output');
  }
  return {
    text: null,
    ids,
    promptLength: inputLogprobs.length,
    finishReason: null,
    logprobs: [...inputLogprobs, ...outputLogprobs].map(logprobOf),
  };
}

export function incomplete(who: string, what: string): DetinferError {
  return new DetinferError('BAD_RESPONSE', `${who} needs ${what}, which the server did not send`);
}

export const idOf = (entry: LogprobEntry): number => entry[1];
export const logprobOf = (entry: LogprobEntry): number | null => entry[0];

/** Answers to one question, which must all be the same. */
export class AnswerSet {
  /** The question, so that a difference can be looked into. */
  readonly prompt: Prompt;
  total = 0;
  tokens = 0;
  /** One per distinct answer, in order of appearance. */
  readonly #distinct = new Map<string, { sample: Sample; origin: Origin }>();

  constructor(prompt: Prompt) {
    this.prompt = prompt;
  }

  get unique(): number {
    return this.#distinct.size;
  }

  add(sample: Sample, origin: Origin): void {
    this.total++;
    this.tokens += sample.ids?.length ?? 0;
    // JSON writes the shortest decimal that reads back as the same double, so equal keys mean equal bits (as ===, so
    // -0 equals 0).
    const key = JSON.stringify(sample);
    if (!this.#distinct.has(key)) this.#distinct.set(key, { sample, origin });
  }

  /** How the first two distinct answers differ, or null when all are equal. */
  difference(): Difference | null {
    const [first, second] = this.#distinct.values();
    return first === undefined || second === undefined ? null : firstDifference(first, second);
  }

  /** The ids before a position, of the first answer. */
  idsBefore(position: number): number[] {
    const [first] = this.#distinct.values();
    return first?.sample.ids?.slice(0, position) ?? [];
  }
}

/** A named line of the result over one or more questions. */
export class Check {
  readonly name: string;
  readonly sets: AnswerSet[];

  constructor(name: string, sets: AnswerSet[] = []) {
    this.name = name;
    this.sets = sets;
  }

  result(differences: Difference[]): CheckResult {
    return {
      name: this.name,
      total: sum(this.sets.map((set) => set.total)),
      unique: this.sets.reduce((most, set) => Math.max(most, set.unique), 0),
      tokens: sum(this.sets.map((set) => set.tokens)),
      differences,
    };
  }
}

function sum(values: number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
