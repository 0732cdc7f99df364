import { AnswerSet, Check, outputSample } from '../answer-set.js';
import { ask, trials, type Mode } from '../context.js';

/** Trial i sends one batch of i copies of one prompt: the size of a batch must not show in any answer. */
export const single: Mode = {
  name: 'single',
  summary: 'one prompt in batches of growing size',
  async run(context) {
    const { options, prompts } = context;
    const answers = new AnswerSet(prompts.short);
    for (const { trial, size } of trials(options)) {
      const batch = await ask(context, new Array(size).fill(prompts.short));
      batch.forEach((answer, index) => {
        answers.add(outputSample(answer, options.returnLogprob), { trial, batchSize: size, index });
      });
      context.tick();
    }
    return [new Check('', [answers])];
  },
};
