import type { Engine, ForwardSlice, ScoreResult, SliceResult } from '../../../lib/engine/types.js';
import type { EngineInfo } from '../../../lib/protocol/messages.js';
import { drawToken, EMPTY_HASH, extendHash, rowLogprobs, VOCAB_SIZE } from './fake-model.js';

// Slow to look up inside Jest's module context.
const { floor } = Math;

/**
 * An engine whose KV pages hold token ids and whose results are hashes of what a row reads through its page table, so
 * that a wrong page, a stale one or a hole changes the answer. It refuses slices that break the engine's preconditions.
 * A step runs when it is collected, as late as a device could: whatever was done after it was submitted must not matter.
 */
export class FakeEngine implements Engine {
  readonly info: EngineInfo;
  readonly cpuSeconds = 0;
  /** Every step that was submitted, with the tokens that it was given. */
  readonly forwards: ForwardSlice[][] = [];
  private readonly underWay: ForwardSlice[][] = [];
  /** What the slices of the step that ran last drew. */
  private drawn: number[] = [];
  private readonly cells: Int32Array;

  constructor(pageSize: number, pages: number, contextLength: number) {
    this.cells = new Int32Array(pages * pageSize).fill(-1);
    this.info = {
      numericContract: 'detinfer-numerics/1',
      modelType: 'fake',
      architectures: ['FakeForCausalLM'],
      device: 'cpu',
      deviceName: 'fake',
      dtype: 'bfloat16',
      attentionBackend: 'triton',
      vocabSize: VOCAB_SIZE,
      contextLength,
      eosTokenIds: [],
      pageSize,
      maxTotalTokens: pages * pageSize,
      maxRunningRequests: 256,
      chunkedPrefillSize: -1,
      weightBytes: 0,
      weightBytesPerToken: 0,
      kvBytesPerToken: 0,
      kvBytes: 0,
      threads: 1,
    };
  }

  submit(slices: ForwardSlice[]): void {
    if (this.underWay.length === 2) throw new Error('two steps are under way');
    // The scheduler's arrays may change from now on.
    const step = slices.map(copySlice);
    this.forwards.push(step);
    this.underWay.push(step);
  }

  collect(): SliceResult[] {
    const step = this.underWay.shift();
    if (step === undefined) throw new Error('no step is under way');
    const slices = step.map((slice) => this.withKnownTokens(slice));
    this.check(slices);
    // All slices write before any reads, as in an engine that runs layer by layer.
    for (const { tokens, start, pages } of slices) {
      for (let i = 0; i < tokens.length; i++) this.cells[this.cell(pages, start + i)] = tokens[i]!;
    }
    const results = slices.map((slice) => this.run(slice));
    this.drawn = results.map(({ token }) => token);
    return results;
  }

  close(): void {}

  private withKnownTokens(slice: ForwardSlice): ForwardSlice {
    const last = slice.tokens.length - 1;
    const source = -1 - slice.tokens[last]!;
    if (source < 0) return slice;
    const tokens = Array.from(slice.tokens);
    // drawn[source] is -1 or absent where nothing was drawn; check() refuses such a token.
    tokens[last] = this.drawn[source] ?? -1;
    return { ...slice, tokens };
  }

  private cell(pages: ArrayLike<number>, position: number): number {
    const { pageSize } = this.info;
    return pages[floor(position / pageSize)]! * pageSize + (position % pageSize);
  }

  private run({ tokens, start, pages, logprobTemperature, score, sample }: ForwardSlice): SliceResult {
    let hash = EMPTY_HASH;
    const hashes: number[] = [];
    for (let position = 0; position < start + tokens.length; position++) {
      hash = extendHash(hash, this.cells[this.cell(pages, position)]!);
      if (position >= start) hashes.push(hash);
    }
    const result: SliceResult = {
      token: -1,
      logprob: NaN,
      topLogprobs: new Float32Array(),
      topIds: new Int32Array(),
      tokenIdLogprobs: new Float32Array(),
      score: null,
    };
    if (sample !== null) {
      result.token = drawToken(hash, sample);
      const row = rowLogprobs(hash, logprobTemperature, result.token, sample.top, sample.tokenIds);
      if (sample.logprob) result.logprob = row.logprob;
      result.topLogprobs = Float32Array.from(row.top, ([logprob]) => logprob);
      result.topIds = Int32Array.from(row.top, ([, id]) => id);
      result.tokenIdLogprobs = Float32Array.from(row.ids);
    }
    if (score !== null) {
      const rows = Array.from(score.targets, (target, i) =>
        rowLogprobs(hashes[score.firstRow + i]!, logprobTemperature, target, score.top, score.tokenIds),
      );
      result.score = {
        logprobs: Float32Array.from(rows, (row) => row.logprob),
        topLogprobs: Float32Array.from(rows.flatMap((row) => row.top.map(([logprob]) => logprob))),
        topIds: Int32Array.from(rows.flatMap((row) => row.top.map(([, id]) => id))),
        tokenIdLogprobs: Float32Array.from(rows.flatMap((row) => row.ids)),
      } satisfies ScoreResult;
    }
    return result;
  }

  private check(slices: ForwardSlice[]): void {
    const { pageSize, contextLength } = this.info;
    const require = (condition: boolean, what: string): void => {
      if (!condition) throw new Error(`bad slice: ${what}`);
    };
    require(slices.length > 0, 'no slices');
    const users = new Map<number, number>();
    for (const { pages } of slices) {
      for (let i = 0; i < pages.length; i++) users.set(pages[i]!, (users.get(pages[i]!) ?? 0) + 1);
    }
    for (const { tokens, start, pages, score, sample } of slices) {
      const end = start + tokens.length;
      require(tokens.length > 0, 'no tokens');
      require(start >= 0 && end <= contextLength, `positions ${start} … ${end - 1}`);
      require(Array.from(tokens).every((id) => id >= 0 && id < VOCAB_SIZE), 'token out of the vocabulary');
      require(pages.length * pageSize >= end, 'pages do not cover the tokens');
      require(Array.from(pages).every((page) => page * pageSize < this.cells.length && page >= 0), 'no such page');
      require(new Set(Array.from(pages)).size === pages.length, 'a page is listed twice');
      for (let position = 0; position < start; position++) {
        require(this.cells[this.cell(pages, position)] !== -1, `nothing was written at ${position}`);
      }
      for (let page = floor(start / pageSize); page * pageSize < end; page++) {
        require(users.get(pages[page]!) === 1, `page ${pages[page]} is written by one slice and used by another`);
      }
      if (score !== null) {
        require(score.targets.length > 0, 'a score without targets');
        require(score.firstRow >= 0 && score.firstRow + score.targets.length <= tokens.length, 'score rows');
        for (let i = score.firstRow + 1; i < tokens.length && i - score.firstRow - 1 < score.targets.length; i++) {
          require(score.targets[i - score.firstRow - 1] === tokens[i], 'a target is not the next token');
        }
      }
      if (sample !== null) require(sample.position === end - 1, 'position of the noise');
    }
  }
}

/** A copy whose arrays are its own; the shared ones of a request never change. */
function copySlice(slice: ForwardSlice): ForwardSlice {
  const { tokens, pages, score, sample } = slice;
  const penalties = sample?.penalties;
  return {
    ...slice,
    tokens: new Int32Array(tokens),
    pages: new Int32Array(pages),
    score: score && { ...score, targets: new Int32Array(score.targets) },
    sample: sample && {
      ...sample,
      penalties: penalties
        ? { ...penalties, ids: new Int32Array(penalties.ids), counts: new Int32Array(penalties.counts) }
        : null,
    },
  };
}
