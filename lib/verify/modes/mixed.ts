import { setTimeout as sleep } from 'node:timers/promises';
import { generate, type Prompt } from '../../client/generate.js';
import { SeededRandom } from '../../client/random.js';
import { AnswerSet, Check, outputSample } from '../answer-set.js';
import { samplingParams, trials, type Mode, type TestContext } from '../context.js';

const LONG_PROBE_CHARACTERS = 2048;
const MAX_FILLER_CHARACTERS = 512;
/** Separate requests that are in flight with each batch. */
const TRAFFIC_REQUESTS = 4;
const MAX_TRAFFIC_BATCH = 3;
const MAX_TRAFFIC_DELAY_MS = 100;

/**
 * Three fixed probes in a crowd: trial i puts them, shuffled, among fillers of random prompts (half of them share the
 * long probe's beginning), lengths and sampling parameters, while other requests come and go. The probes' answers
 * must not change.
 */
export const mixed: Mode = {
  name: 'mixed',
  summary: 'fixed probes among random batch-mates and other traffic',
  async run(context) {
    const { options, prompts } = context;
    const random = new SeededRandom(options.randomSeed);
    const probes = [
      prompts.short,
      prompts.secondShort,
      prompts.part(0, Math.min(prompts.unitsOf(LONG_PROBE_CHARACTERS), prompts.longest)),
    ];
    const sets = probes.map((prompt) => new AnswerSet(prompt));
    for (const { trial, size } of trials(options)) {
      const items = random.shuffle([
        ...sets.map((set) => probeItem(context, set)),
        ...Array.from({ length: size - 1 }, () => fillerItem(context, random)),
      ]);
      const traffic = Array.from({ length: TRAFFIC_REQUESTS }, () => planTraffic(context, random));
      const [batch] = await Promise.all([
        send(context, items),
        ...traffic.map((request) => sendLater(context, request)),
      ]);
      batch.forEach((answer, index) => {
        const origin = { trial, batchSize: items.length, index };
        items[index]?.set?.add(outputSample(answer, options.returnLogprob), origin);
      });
      context.tick();
    }
    return ['Prompt 1', 'Prompt 2', 'Long prompt'].map((name, i) => new Check(name, [sets[i] as AnswerSet]));
  },
};

interface Item {
  prompt: Prompt;
  sampling: Record<string, unknown>;
  /** null: the answer doesn't matter. */
  set: AnswerSet | null;
}

interface Traffic {
  delayMs: number;
  items: Item[];
}

function probeItem({ options, prompts }: TestContext, set: AnswerSet): Item {
  return { prompt: set.prompt, sampling: samplingParams(options, prompts.kind === 'ids'), set };
}

/** A random part of the long prompt, with its own idea of sampling, that leaves the batch at a random time. */
function fillerItem({ options, prompts }: TestContext, random: SeededRandom): Item {
  const length = random.integer(1, Math.min(prompts.unitsOf(MAX_FILLER_CHARACTERS), prompts.longest));
  const begin = random.next() < 0.5 ? 0 : random.integer(0, prompts.longest - length);
  return {
    prompt: prompts.part(begin, begin + length),
    sampling: {
      temperature: random.pick([0, 0.7, 1.3]),
      top_p: random.pick([1, 0.9]),
      frequency_penalty: random.pick([0, 0.5]),
      sampling_seed: random.integer(0, 2 ** 31),
      max_new_tokens: random.integer(1, options.maxNewTokens),
      ignore_eos: true,
    },
    set: null,
  };
}

function planTraffic(context: TestContext, random: SeededRandom): Traffic {
  const count = random.integer(1, MAX_TRAFFIC_BATCH);
  return {
    delayMs: random.integer(0, MAX_TRAFFIC_DELAY_MS),
    items: Array.from({ length: count }, () => fillerItem(context, random)),
  };
}

async function sendLater(context: TestContext, { delayMs, items }: Traffic): Promise<void> {
  await sleep(delayMs);
  await send(context, items);
}

function send({ client, options }: TestContext, items: Item[]): ReturnType<typeof generate> {
  return generate(client, {
    prompts: items.map((item) => item.prompt),
    sampling: items.map((item) => item.sampling),
    returnLogprob: options.returnLogprob,
    stream: options.stream,
  });
}
