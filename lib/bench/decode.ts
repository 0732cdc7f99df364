import { SeededRandom } from '../client/random.js';
import { loadEngine } from '../engine/engine.js';
import type { Engine, SampleSpec } from '../engine/types.js';
import { DetinferError } from '../protocol/errors.js';
import type { EngineInfo } from '../protocol/messages.js';
import type { ServerArgs } from '../protocol/server-args.js';
import { measureReadBandwidth } from './native.js';

export interface DecodeOptions {
  /** Tokens of the prompt; decoding begins at this length. */
  promptTokens: number;
  /** Tokens decoded one by one. */
  newTokens: number;
  /** Times that all of it is done; the fastest counts, as with the bandwidth, since a machine may have other guests. */
  rounds: number;
}

export interface DecodeReport {
  model: string;
  loadFormat: string;
  info: EngineInfo;
  options: DecodeOptions;
  bandwidthBytesPerSecond: number;
  prefillTokensPerSecond: number;
  decodeTokensPerSecond: number;
  /** Bytes that a decoded token must read: its weights once and, on average over the run, this many keys and values. */
  bytesPerToken: number;
  /** Tokens per second that would take all of the bandwidth. */
  floorTokensPerSecond: number;
}

const GREEDY: SampleSpec = {
  greedy: true,
  temperature: 1,
  topK: -1,
  topP: 1,
  minP: 0,
  seedLow: 0,
  seedHigh: 0,
  position: 0,
  biasIds: [],
  biasValues: [],
  penalties: null,
  allowed: null,
  logprob: false,
  top: 0,
  tokenIds: [],
};

/**
 * Prefills a random prompt and decodes from it, alone, in this process: the engine without server and scheduler. The
 * bandwidth is measured before and after each round; of it, too, the best counts.
 * @throws DetinferError when the model can't be loaded, the lengths don't fit, or the native benchmark is not built.
 */
export async function benchDecode(
  args: ServerArgs,
  options: DecodeOptions,
  nativeBench: string,
): Promise<DecodeReport> {
  const engine = loadEngine(args, () => {});
  const { info } = engine;
  try {
    checkFit(info, options);
    // The first pass touches every page of the weights and of the cache; it is not what is measured.
    generate(engine, { ...options, newTokens: 1 });
    const rounds: Seconds[] = [];
    const bandwidths = [await measureReadBandwidth(nativeBench, info.threads)];
    for (let i = 0; i < options.rounds; i++) {
      rounds.push(generate(engine, options));
      bandwidths.push(await measureReadBandwidth(nativeBench, info.threads));
    }
    const bandwidth = Math.max(...bandwidths);
    const meanLength = options.promptTokens + (options.newTokens - 1) / 2;
    const bytesPerToken = info.weightBytesPerToken + info.kvBytesPerToken * meanLength;
    return {
      model: args.modelPath,
      loadFormat: args.loadFormat,
      info,
      options,
      bandwidthBytesPerSecond: bandwidth,
      prefillTokensPerSecond: options.promptTokens / Math.min(...rounds.map((round) => round.prefillSeconds)),
      decodeTokensPerSecond: options.newTokens / Math.min(...rounds.map((round) => round.decodeSeconds)),
      bytesPerToken,
      floorTokensPerSecond: bandwidth / bytesPerToken,
    };
  } finally {
    engine.close();
  }
}

/** The result as lines for a terminal. */
export function formatDecode(report: DecodeReport): string[] {
  const { info, options } = report;
  const architecture = info.architectures.join(', ');
  const megabytes = (report.bytesPerToken / 1e6).toFixed(2);
  const share = (rate: number): string => `${(rate / report.floorTokensPerSecond).toFixed(2)} of the memory floor`;
  return [
    `Model            ${report.model} (${architecture}, ${info.dtype}, load format ${report.loadFormat})`,
    `Engine           ${info.device}, ${info.deviceName}, ${info.threads} threads`,
    `Read bandwidth   ${(report.bandwidthBytesPerSecond / 1e9).toFixed(1)} GB/s, measured`,
    `Memory floor     ${megabytes} MB per token: ${report.floorTokensPerSecond.toFixed(1)} tokens/s`,
    `Decode, batch 1  ${report.decodeTokensPerSecond.toFixed(1)} tokens/s: ${share(report.decodeTokensPerSecond)} ` +
      `(${options.newTokens} tokens from position ${options.promptTokens}, best of ${options.rounds})`,
    `Prefill          ${report.prefillTokensPerSecond.toFixed(1)} tokens/s: ${share(report.prefillTokensPerSecond)} ` +
      `(${options.promptTokens} tokens in chunks of ${chunkSize(info, options)})`,
  ];
}

function checkFit({ contextLength, maxTotalTokens }: EngineInfo, { promptTokens, newTokens }: DecodeOptions): void {
  const room = Math.min(contextLength, maxTotalTokens);
  if (promptTokens + newTokens <= room) return;
  throw new DetinferError(
    'INVALID_FLAG',
    `--prompt-tokens ${promptTokens} and --new-tokens ${newTokens} are more than the ${room} tokens that fit`,
  );
}

function chunkSize({ chunkedPrefillSize }: EngineInfo, { promptTokens }: DecodeOptions): number {
  return chunkedPrefillSize > 0 ? Math.min(chunkedPrefillSize, promptTokens) : promptTokens;
}

interface Seconds {
  prefillSeconds: number;
  decodeSeconds: number;
}

function generate(engine: Engine, options: DecodeOptions): Seconds {
  const { info } = engine;
  const pages = Array.from(
    { length: Math.ceil((options.promptTokens + options.newTokens) / info.pageSize) },
    (_, i) => i,
  );
  const prompt = new SeededRandom(1).tokenIds(options.promptTokens, info.vocabSize);
  const chunk = chunkSize(info, options);
  const forward = (tokens: number[], start: number): number => {
    const isLast = start + tokens.length >= options.promptTokens;
    const sample = isLast ? { ...GREEDY, position: start + tokens.length - 1 } : null;
    const [result] = engine.forward([{ tokens, start, pages, logprobTemperature: 1, score: null, sample }]);
    return (result as { token: number }).token;
  };
  const begin = performance.now();
  let token = -1;
  for (let start = 0; start < prompt.length; start += chunk) token = forward(prompt.slice(start, start + chunk), start);
  const prefilled = performance.now();
  for (let i = 0; i < options.newTokens; i++) token = forward([token], options.promptTokens + i);
  const end = performance.now();
  return { prefillSeconds: (prefilled - begin) / 1000, decodeSeconds: (end - prefilled) / 1000 };
}
