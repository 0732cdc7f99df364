import type { Engine, ForwardSlice, SampleSpec } from '../engine/types.js';

/** A prompt and its output. */
export interface Sequence {
  tokens: Int32Array;
  promptLength: number;
}

/**
 * Log-probabilities of the output tokens, by prefilling the sequence in chunks. Its keys and values are in the pages of
 * pagesOf() then.
 */
export function scoreTokens(engine: Engine, { tokens, promptLength }: Sequence, temperature: number): Float32Array {
  const { chunkedPrefillSize } = engine.info;
  const chunk = chunkedPrefillSize > 0 ? chunkedPrefillSize : tokens.length;
  const scored = new Float32Array(tokens.length - promptLength);
  // The last token has nothing behind it, so its row is not needed.
  const rows = tokens.length - 1;
  for (let start = 0; start < rows; start += chunk) {
    const end = Math.min(start + chunk, rows);
    const first = Math.max(start, promptLength - 1);
    const targets = tokens.subarray(first + 1, end + 1);
    const score = first < end ? { firstRow: first - start, targets, top: 0, tokenIds: [] } : null;
    const slice = { start, pages: pagesOf(engine, tokens), logprobTemperature: temperature, score, sample: null };
    const [result] = run(engine, [{ ...slice, tokens: tokens.subarray(start, end) }]);
    if (score) scored.set(result!.score!.logprobs, first + 1 - promptLength);
  }
  return scored;
}

/**
 * The token that is drawn at each position of the output, after the tokens that the sequence has before it. Many
 * positions go through the model in one step, each as a decode of its own over the keys and values of scoreTokens();
 * writing those of its own token again changes no bit.
 * @returns as many tokens as there are specs
 */
export function drawTokens(
  engine: Engine,
  { tokens, promptLength }: Sequence,
  specs: Iterable<SampleSpec>,
  temperature: number,
): number[] {
  const pages = pagesOf(engine, tokens);
  const drawn: number[] = [];
  let slices: ForwardSlice[] = [];
  const flush = (): void => {
    drawn.push(...run(engine, slices).map(({ token }) => token));
    slices = [];
  };
  for (const sample of specs) {
    const start = promptLength - 1 + drawn.length + slices.length;
    const token = tokens.subarray(start, start + 1);
    slices.push({ tokens: token, start, pages, logprobTemperature: temperature, score: null, sample });
    if (slices.length === engine.info.maxRunningRequests) flush();
  }
  if (slices.length > 0) flush();
  return drawn;
}

function pagesOf({ info }: Engine, tokens: Int32Array): Int32Array {
  return Int32Array.from({ length: Math.ceil(tokens.length / info.pageSize) }, (_, page) => page);
}

function run(engine: Engine, slices: ForwardSlice[]): ReturnType<Engine['collect']> {
  engine.submit(slices);
  return engine.collect();
}
