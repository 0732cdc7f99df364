import { SeededRandom } from '../../client/random.js';
import { AnswerSet, Check, outputSample } from '../answer-set.js';
import { ask, flushCache, trials, type Mode, type TestContext } from '../context.js';

/** Just below, at and above the sizes of pages, chunks and blocks. */
const PREFIX_LENGTHS = [1, 511, 2048, 4097];

/** Trial i flushes the cache and sends a batch of i random prefixes of one text: who shares a prefix must not show. */
export const prefix: Mode = {
  name: 'prefix',
  summary: 'prompts that share prefixes of 1 to 4097 characters, in random batches',
  async run(context) {
    const { client, options, prompts } = context;
    const lengths = prefixLengths(context);
    const sets = lengths.map((length) => new AnswerSet(prompts.part(0, length)));
    const random = new SeededRandom(options.randomSeed);
    for (const { trial, size } of trials(options)) {
      await flushCache(client);
      const asked = Array.from({ length: size }, () => random.pick(sets));
      const batch = await ask(
        context,
        asked.map((set) => set.prompt),
      );
      batch.forEach((answer, index) => {
        asked[index]?.add(outputSample(answer, options.returnLogprob), { trial, batchSize: size, index });
      });
      context.tick();
    }
    return sets.map((set, i) => new Check(`Prompt ${i} with prefix length ${lengths[i]}`, [set]));
  },
};

/** The lengths in units of the prompts, with a note about each that had to be shortened. */
function prefixLengths({ prompts, server, options, note }: TestContext): number[] {
  const lengths = new Set<number>();
  for (const wanted of PREFIX_LENGTHS) {
    const length = Math.min(prompts.unitsOf(wanted), prompts.longest);
    if (length < prompts.unitsOf(wanted)) {
      note(
        `a prefix of ${prompts.unitsOf(wanted)} ${prompts.unit} does not fit into the context of ` +
          `${server.contextLength} tokens with --max-new-tokens ${options.maxNewTokens}: shortened to ${length}`,
      );
    }
    lengths.add(length);
  }
  return [...lengths];
}
