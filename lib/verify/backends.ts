import { generate, type Answer, type Prompt } from '../client/generate.js';
import { HttpClient } from '../client/http.js';
import { SeededRandom } from '../client/random.js';
import { readServerFacts, type ServerFacts } from '../client/server-facts.js';
import { DetinferError } from '../protocol/errors.js';
import { AnswerSet, Check, wholeSample, type Sample } from './answer-set.js';
import { flushCache, samplingParams, trials } from './context.js';
import type { Progress } from './progress.js';
import { choosePrompts, randomSlice, type PromptSource } from './prompt-source.js';
import { BACKENDS_MODE, type TestOptions, type TestReport } from './types.js';

const WHO = `mode ${BACKENDS_MODE}`;
const TOP_LOGPROBS = 5;

/** Temperature of every second question, so that seeded sampling is always among what is compared. */
const SAMPLED_TEMPERATURE = 0.8;

/** What is another at each request, and how much of a prompt a batch-mate had brought into the cache. */
const FIELDS_OF_A_RUN = ['id', 'e2e_latency', 'cached_tokens'];
/** Compared as tokens, so that a difference is shown as one. */
const TOKEN_FIELDS = ['input_token_logprobs', 'output_token_logprobs', 'finish_reason'];

interface Server {
  name: string;
  url: string;
  facts: ServerFacts;
}

/**
 * Sends the same requests to one server after another and compares every field of their answers. Trial i flushes the
 * cache and sends a batch of i prompts, the first of any length; every second one is sampled.
 */
export class BackendComparison {
  private readonly options: TestOptions;
  private readonly progress: Progress;
  private readonly servers: Server[] = [];
  /** By trial, then by index in the batch; the first server's prompts are everyone's. */
  private sets: AnswerSet[][] = [];
  private prompts: PromptSource | null = null;
  private notes: string[] = [];
  private seconds = 0;

  constructor(options: TestOptions, progress: Progress) {
    this.options = options;
    this.progress = progress;
  }

  /**
   * @param name what the report calls the server; null: its backend and device.
   * @throws DetinferError UNREACHABLE, BAD_RESPONSE, or INVALID_FLAG where the servers can't be compared.
   */
  async ask(name: string | null, url: string, apiKey: string | null): Promise<void> {
    const client = new HttpClient(url, apiKey);
    const started = performance.now();
    try {
      const facts = await readServerFacts(client);
      const server = { name: name ?? nameOf(facts, url), url, facts };
      await this.choose(client, server);
      this.servers.push(server);
      this.progress.start(server.name, this.options.nTrials);
      for (const { trial, size } of trials(this.options)) {
        await flushCache(client);
        const sets = this.sets[trial - 1] as AnswerSet[];
        const answers = await this.generate(client, sets);
        answers.forEach((answer, index) => {
          const set = sets[index] as AnswerSet;
          set.add(sampleOf(answer, set.prompt), { trial, batchSize: size, index, role: server.name });
        });
        this.progress.tick();
      }
    } finally {
      this.progress.stop();
      await client.close();
      this.seconds += (performance.now() - started) / 1000;
    }
  }

  report(): TestReport {
    const [first] = this.servers;
    if (first === undefined || this.prompts === null) throw new Error('no server was asked');
    const check = new Check(`Answers of ${this.servers.map(({ name }) => name).join(', ')}`, this.sets.flat());
    const differences = check.sets.flatMap((set) => set.difference() ?? []).slice(0, 3);
    return {
      url: this.servers.map(({ url }) => url).join(', '),
      server: { ...first.facts, attentionBackend: null, device: null },
      prompts: this.prompts.kind,
      options: this.options,
      notes: this.notes,
      modes: [
        { mode: BACKENDS_MODE, error: null, checks: [check.result(differences)], notes: [], seconds: this.seconds },
      ],
    };
  }

  private async choose(client: HttpClient, { name, facts }: Server): Promise<void> {
    const [first] = this.servers;
    if (first === undefined) {
      const { prompts, notes } = await choosePrompts(client, facts, this.options);
      [this.prompts, this.notes] = [prompts, notes];
      const random = new SeededRandom(this.options.randomSeed);
      this.sets = trials(this.options).map(({ size }) =>
        Array.from({ length: size }, (_, i) => new AnswerSet(randomSlice(prompts, random, i === 0))),
      );
      return;
    }
    for (const key of ['vocabSize', 'skipTokenizerInit', 'numericContract'] as const) {
      if (facts[key] === first.facts[key]) continue;
      throw new DetinferError(
        'INVALID_FLAG',
        `${first.name} and ${name} can't be compared: ${key} is ${first.facts[key]} of one and ${facts[key]} of the other`,
      );
    }
  }

  private generate(client: HttpClient, sets: AnswerSet[]): Promise<Answer[]> {
    const base = samplingParams(this.options, this.prompts?.kind === 'ids');
    const sampling = sets.map((_, i) =>
      i % 2 === 0 ? base : { ...base, temperature: SAMPLED_TEMPERATURE, sampling_seed: this.options.samplingSeed + i },
    );
    const prompts: Prompt[] = sets.map(({ prompt }) => prompt);
    return generate(client, {
      ...{ prompts, sampling, returnLogprob: true, logprobStart: 0, topLogprobs: TOP_LOGPROBS },
      stream: this.options.stream,
    });
  }
}

function sampleOf(answer: Answer, prompt: Prompt): Sample {
  const { meta_info: meta, output_ids: _ids, text: _text, ...others } = answer.raw;
  const info = Object.entries(meta as object).filter(([key]) => ![...FIELDS_OF_A_RUN, ...TOKEN_FIELDS].includes(key));
  return {
    ...wholeSample(answer, prompt, WHO),
    text: answer.text,
    finishReason: answer.finishReason,
    otherFields: JSON.stringify({ ...others, meta_info: Object.fromEntries(info) }),
  };
}

function nameOf({ attentionBackend, device }: ServerFacts, url: string): string {
  return `${attentionBackend ?? 'backend unknown'} (${device ?? 'device unknown'}, ${url})`;
}
