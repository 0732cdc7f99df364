import type { PenaltySpec, SampleSpec } from '../engine/types.js';
import type { GrammarMatcher } from '../grammar/matcher.js';
import type { LogprobRequest } from '../protocol/messages.js';
import { GREEDY_TEMPERATURE, type StopConditions, type TokenSampling } from '../protocol/sampling.js';
import { IntList } from './int-list.js';

const TWO_32 = 2 ** 32;

/** What is added to logits, in the two parallel arrays that SampleSpec wants. */
interface Bias {
  ids: Int32Array;
  values: Float32Array;
}

/** Turns the sampling parameters of a request into the SampleSpec of each of its steps. */
export class Sampler {
  /** Temperature of reported logprobs. */
  readonly logprobTemperature: number;
  private readonly sampling: TokenSampling;
  private readonly greedy: boolean;
  private readonly seedLow: number;
  private readonly seedHigh: number;
  private readonly bias: Bias;
  /** The bias while the output is shorter than minNewTokens: stop ids are banned. */
  private readonly earlyBias: Bias;
  private readonly minNewTokens: number;
  private readonly logprob: boolean;
  private readonly top: number;
  private readonly tokenIds: Int32Array;
  private readonly counts: OutputCounts | null;
  private readonly matcher: GrammarMatcher | null;

  /** @param matcher of the request's grammar, or null. */
  constructor(
    sampling: TokenSampling,
    stop: StopConditions,
    logprobs: LogprobRequest | null,
    matcher: GrammarMatcher | null,
  ) {
    this.sampling = sampling;
    this.greedy = sampling.temperature < GREEDY_TEMPERATURE;
    this.logprobTemperature = this.greedy ? 1 : sampling.temperature;
    this.seedHigh = Math.floor(sampling.seed / TWO_32) >>> 0;
    this.seedLow = sampling.seed >>> 0;
    this.minNewTokens = stop.minNewTokens;
    this.bias = toBias(sampling.logitBias);
    // A grammar leaves the stop ids out itself, as long as it can go on without them.
    const bansByBias = stop.minNewTokens > 0 && matcher === null;
    this.earlyBias = bansByBias ? withBans(sampling.logitBias, stop.stopTokenIds) : this.bias;
    this.matcher = matcher;
    this.logprob = logprobs !== null;
    this.top = logprobs?.top ?? 0;
    this.tokenIds = Int32Array.from(logprobs?.tokenIds ?? []);
    const { frequencyPenalty, presencePenalty, repetitionPenalty } = sampling;
    const hasPenalty = frequencyPenalty !== 0 || presencePenalty !== 0 || repetitionPenalty !== 1;
    this.counts = hasPenalty ? new OutputCounts() : null;
  }

  /** Whether what is drawn depends on the tokens drawn before, other than through the model. */
  get dependsOnOutput(): boolean {
    return this.counts !== null || this.matcher !== null;
  }

  /** @param position of the row that is sampled. @param outputLength number of tokens drawn so far. */
  spec(position: number, outputLength: number): SampleSpec {
    const isEarly = outputLength < this.minNewTokens;
    const bias = isEarly ? this.earlyBias : this.bias;
    return {
      greedy: this.greedy,
      temperature: this.sampling.temperature,
      topK: this.sampling.topK,
      topP: this.sampling.topP,
      minP: this.sampling.minP,
      seedLow: this.seedLow,
      seedHigh: this.seedHigh,
      position,
      biasIds: bias.ids,
      biasValues: bias.values,
      penalties: this.penalties(),
      allowed: this.matcher?.allowed(isEarly) ?? null,
      logprob: this.logprob,
      top: this.top,
      tokenIds: this.tokenIds,
    };
  }

  /** Counts a drawn token for the penalties, and goes on in the grammar. */
  record(token: number): void {
    this.counts?.add(token);
    this.matcher?.advance(token);
  }

  private penalties(): PenaltySpec | null {
    if (this.counts === null) return null;
    return {
      frequency: this.sampling.frequencyPenalty,
      presence: this.sampling.presencePenalty,
      repetition: this.sampling.repetitionPenalty,
      ...this.counts.views(),
    };
  }
}

/** How often each token was drawn, in parallel arrays in the order of first appearance. */
class OutputCounts {
  private readonly ids = new IntList(64);
  private readonly counts = new IntList(64);
  private readonly indexOf = new Map<number, number>();

  add(token: number): void {
    const index = this.indexOf.get(token);
    if (index !== undefined) {
      this.counts.set(index, this.counts.get(index) + 1);
      return;
    }
    this.indexOf.set(token, this.ids.length);
    this.ids.push(token);
    this.counts.push(1);
  }

  /** Both arrays as views, without a copy. */
  views(): Pick<PenaltySpec, 'ids' | 'counts'> {
    const { length } = this.ids;
    return { ids: this.ids.view(0, length), counts: this.counts.view(0, length) };
  }
}

function toBias(entries: readonly [tokenId: number, bias: number][]): Bias {
  return { ids: Int32Array.from(entries, ([id]) => id), values: Float32Array.from(entries, ([, value]) => value) };
}

/** A banned id's own bias is left out, since an infinite one would turn the ban into NaN. */
function withBans(entries: readonly [tokenId: number, bias: number][], banned: readonly number[]): Bias {
  const bannedIds = new Set(banned);
  const kept = entries.filter(([id]) => !bannedIds.has(id));
  return toBias([...kept, ...[...bannedIds].map((id): [number, number] => [id, -Infinity])]);
}
