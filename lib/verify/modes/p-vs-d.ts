import { generate, type Answer, type Prompt } from '../../client/generate.js';
import { SeededRandom } from '../../client/random.js';
import { AnswerSet, Check, idOf, incomplete, logprobOf, wholeSample, type Sample } from '../answer-set.js';
import { flushCache, samplingParams, trials, type Mode, type TestContext } from '../context.js';
import { randomSlice } from '../prompt-source.js';

const WHO = 'mode p_vs_d';

/**
 * Prefill against decode: trial i generates a batch of i answers with all logprobs, flushes the cache, and sends each
 * prompt + answer as a prompt. The logprobs of the second pass must be those of the first.
 */
export const pVsD: Mode = {
  name: 'p_vs_d',
  summary: 'logprobs of generated tokens against those of the same tokens scored as a prompt',
  async run(context) {
    const { client, options } = context;
    const random = new SeededRandom(options.randomSeed);
    const sets: AnswerSet[] = [];
    for (const { trial, size } of trials(options)) {
      const prompts = Array.from({ length: size }, (_, i) => randomSlice(context.prompts, random, i === 0));
      const generated = (await decode(context, prompts)).map((answer, i) =>
        wholeSample(answer, prompts[i] as Prompt, WHO),
      );
      await flushCache(client);
      const scored = await prefill(
        context,
        generated.map((sample) => sample.ids as number[]),
      );
      generated.forEach((sample, index) => {
        const set = new AnswerSet(prompts[index] as Prompt);
        const origin = { trial, batchSize: size, index };
        set.add(sample, { ...origin, role: 'generated' });
        set.add(scoredSample(scored[index] as Answer, sample), { ...origin, role: 'scored' });
        sets.push(set);
      });
      context.tick();
    }
    return [new Check(`Logprobs of ${sets.length} sequences, generated and scored`, sets)];
  },
};

function decode({ client, options }: TestContext, prompts: Prompt[]): Promise<Answer[]> {
  return generate(client, { prompts, sampling: samplingParams(options, true), returnLogprob: true, logprobStart: 0 });
}

function prefill({ client, options }: TestContext, prompts: number[][]): Promise<Answer[]> {
  const sampling = { ...samplingParams(options, true), max_new_tokens: 0 };
  return generate(client, { prompts, sampling, returnLogprob: true, logprobStart: 0 });
}

function scoredSample({ inputLogprobs }: Answer, generated: Sample): Sample {
  if (inputLogprobs?.length !== generated.ids?.length) throw incomplete(WHO, 'a logprob for each token of a scored prompt');
  return { ...generated, ids: (inputLogprobs ?? []).map(idOf), logprobs: (inputLogprobs ?? []).map(logprobOf) };
}
