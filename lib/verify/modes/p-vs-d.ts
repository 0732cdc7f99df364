import { generate, type Answer, type Prompt } from '../../client/generate.js';
import { SeededRandom } from '../../client/random.js';
import { DetinferError } from '../../protocol/errors.js';
import { AnswerSet, Check, idOf, logprobOf, type Sample } from '../answer-set.js';
import { flushCache, samplingParams, trials, type Mode, type TestContext } from '../context.js';

const LONGEST_SLICE_CHARACTERS = 256;

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
      const prompts = Array.from({ length: size }, (_, i) => makePrompt(context, random, i === 0));
      const generated = (await decode(context, prompts)).map((answer, i) =>
        generatedSample(answer, prompts[i] as Prompt),
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

/** A slice of the long prompt; the first of each batch may be as long as the whole. */
function makePrompt({ prompts }: TestContext, random: SeededRandom, isFirst: boolean): Prompt {
  const length = random.integer(
    1,
    isFirst ? prompts.longest : Math.min(prompts.unitsOf(LONGEST_SLICE_CHARACTERS), prompts.longest),
  );
  const begin = random.next() < 0.3 ? 0 : random.integer(0, prompts.longest - length);
  return prompts.part(begin, begin + length);
}

function decode({ client, options }: TestContext, prompts: Prompt[]): Promise<Answer[]> {
  return generate(client, { prompts, sampling: samplingParams(options, true), returnLogprob: true, logprobStart: 0 });
}

function prefill({ client, options }: TestContext, prompts: number[][]): Promise<Answer[]> {
  const sampling = { ...samplingParams(options, true), max_new_tokens: 0 };
  return generate(client, { prompts, sampling, returnLogprob: true, logprobStart: 0 });
}

function generatedSample({ inputLogprobs, outputLogprobs, outputIds }: Answer, prompt: Prompt): Sample {
  if (inputLogprobs === null || outputLogprobs === null)
    throw incomplete('input_token_logprobs and output_token_logprobs');
  const ids = [...inputLogprobs, ...outputLogprobs].map(idOf);
  const expected = [...(typeof prompt === 'string' ? inputLogprobs.map(idOf) : prompt), ...(outputIds ?? [])];
  if (outputIds !== null && ids.join() !== expected.join())
    throw incomplete('a logprob for each token of prompt and output');
  return {
    text: null,
    ids,
    promptLength: inputLogprobs.length,
    finishReason: null,
    logprobs: [...inputLogprobs, ...outputLogprobs].map(logprobOf),
  };
}

function scoredSample({ inputLogprobs }: Answer, generated: Sample): Sample {
  if (inputLogprobs?.length !== generated.ids?.length) throw incomplete('a logprob for each token of a scored prompt');
  return { ...generated, ids: (inputLogprobs ?? []).map(idOf), logprobs: (inputLogprobs ?? []).map(logprobOf) };
}

function incomplete(what: string): DetinferError {
  return new DetinferError('BAD_RESPONSE', `mode p_vs_d needs ${what}, which the server did not send`);
}
