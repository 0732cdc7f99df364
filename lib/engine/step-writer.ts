import type { NativeStep } from './native.js';
import type { ForwardSlice, PenaltySpec, SampleSpec, ScoreSpec } from './types.js';

/**
 * Writes the slices of a step one after another into two arrays, which the addon reads in the same order
 * (cuda/addon/step_reader.cpp). To read them as objects would take it 4 µs for each.
 */
export class StepWriter {
  private numbers = new Float64Array(512);
  /** Integers, flags (0 or 1), and lists behind their lengths. */
  private words = new Int32Array(4096);
  /** The same memory. */
  private floats = new Float32Array(this.words.buffer);
  private numberCount = 0;
  private wordCount = 0;

  /** @returns arrays that are valid until the next call. */
  write(slices: readonly ForwardSlice[]): NativeStep {
    this.numberCount = 0;
    this.wordCount = 0;
    for (const slice of slices) this.slice(slice);
    return {
      slices: slices.length,
      numbers: this.numbers.subarray(0, this.numberCount),
      words: this.words.subarray(0, this.wordCount),
    };
  }

  private slice({ tokens, start, pages, logprobTemperature, score, sample }: ForwardSlice): void {
    this.list(tokens);
    this.word(start);
    this.list(pages);
    this.number(logprobTemperature);
    this.flag(score !== null);
    if (score !== null) this.score(score);
    this.flag(sample !== null);
    if (sample !== null) this.sample(sample);
  }

  private score({ firstRow, targets, top, tokenIds }: ScoreSpec): void {
    this.word(firstRow);
    this.list(targets);
    this.word(top);
    this.list(tokenIds);
  }

  private sample(sample: SampleSpec): void {
    this.flag(sample.greedy);
    this.number(sample.temperature);
    this.number(sample.topK);
    this.number(sample.topP);
    this.number(sample.minP);
    this.word(sample.seedLow);
    this.word(sample.seedHigh);
    this.word(sample.position);
    this.list(sample.biasIds);
    this.floatList(sample.biasValues);
    this.flag(sample.penalties !== null);
    if (sample.penalties !== null) this.penalties(sample.penalties);
    this.flag(sample.allowed !== null);
    if (sample.allowed !== null) this.list(sample.allowed);
    this.flag(sample.logprob);
    this.word(sample.top);
    this.list(sample.tokenIds);
  }

  private penalties({ frequency, presence, repetition, ids, counts }: PenaltySpec): void {
    this.number(frequency);
    this.number(presence);
    this.number(repetition);
    this.list(ids);
    this.list(counts);
  }

  private number(value: number): void {
    if (this.numberCount === this.numbers.length) {
      const grown = new Float64Array(2 * this.numbers.length);
      grown.set(this.numbers);
      this.numbers = grown;
    }
    this.numbers[this.numberCount++] = value;
  }

  /** An integer of 32 bits, with or without a sign. */
  private word(value: number): void {
    this.reserve(1);
    this.words[this.wordCount++] = value;
  }

  private flag(value: boolean): void {
    this.word(value ? 1 : 0);
  }

  private list(values: ArrayLike<number>): void {
    this.word(values.length);
    this.reserve(values.length);
    this.words.set(values, this.wordCount);
    this.wordCount += values.length;
  }

  private floatList(values: ArrayLike<number>): void {
    this.word(values.length);
    this.reserve(values.length);
    this.floats.set(values, this.wordCount);
    this.wordCount += values.length;
  }

  private reserve(count: number): void {
    if (this.wordCount + count <= this.words.length) return;
    const grown = new Int32Array(Math.max(2 * this.words.length, this.wordCount + count));
    grown.set(this.words);
    this.words = grown;
    this.floats = new Float32Array(grown.buffer);
  }
}
