import { generate, type Answer } from '../../client/generate.js';
import { SeededRandom } from '../../client/random.js';
import { DetinferError } from '../../protocol/errors.js';
import { AnswerSet, Check, outputSample } from '../answer-set.js';
import { flushCache, samplingParams, trials, type Mode, type TestContext } from '../context.js';
import { requireVocabSize } from '../prompt-source.js';

const SHORTEST_PROMPT = 32;
const LONGEST_PROMPT = 256;

/**
 * Each trial generates from random ids, sends prompt + output again, flushes the cache and sends it once more. The
 * next token and its logprob must be the same whether the cache was warm or empty.
 */
export const radixCache: Mode = {
  name: 'radix_cache',
  summary: 'the next token with a warm and with an empty prefix cache',
  async run(context) {
    const { client, server, options, prompts } = context;
    const vocabSize = requireVocabSize(server, options, 'mode radix_cache starts from random ids');
    const random = new SeededRandom(options.randomSeed);
    const longest =
      prompts.kind === 'ids' ? prompts.longest : (server.contextLength ?? Infinity) - options.maxNewTokens;
    const sets: AnswerSet[] = [];
    let mostCached: number | null = null;
    for (const { trial } of trials(options)) {
      const length = Math.min(random.integer(SHORTEST_PROMPT, LONGEST_PROMPT), longest);
      const ids = await extend(context, random.tokenIds(length, vocabSize));
      const cached = await nextToken(context, ids);
      await flushCache(client);
      const uncached = await nextToken(context, ids);
      if (uncached.cachedTokens) {
        throw new DetinferError('BAD_RESPONSE', `/flush_cache left ${uncached.cachedTokens} tokens in the cache`);
      }
      if (cached.cachedTokens !== null) mostCached = Math.max(mostCached ?? 0, cached.cachedTokens);

      const set = new AnswerSet(ids);
      const origin = { trial, batchSize: 1, index: 0 };
      set.add(outputSample(cached, true), { ...origin, role: `cached (${cached.cachedTokens ?? '?'} tokens)` });
      set.add(outputSample(uncached, true), { ...origin, role: 'uncached' });
      sets.push(set);
      context.tick();
    }
    requireCacheHits(context, mostCached);
    return [new Check(`Next token of ${sets.length} sequences, cached and uncached`, sets)];
  },
};

/** The prompt and all but the last token of its continuation. */
async function extend({ client, options }: TestContext, prompt: number[]): Promise<number[]> {
  const [answer] = await generate(client, { prompts: [prompt], sampling: samplingParams(options, true) });
  if (!answer?.outputIds) {
    throw new DetinferError('BAD_RESPONSE', 'the server sends no output_ids, which mode radix_cache needs');
  }
  return [...prompt, ...answer.outputIds.slice(0, -1)];
}

async function nextToken({ client, options }: TestContext, ids: number[]): Promise<Answer> {
  const sampling = { ...samplingParams(options, true), max_new_tokens: 1 };
  const [answer] = await generate(client, { prompts: [ids], sampling, returnLogprob: true });
  return answer as Answer;
}

/** Without a single hit the mode would compare two cold runs and prove nothing. */
function requireCacheHits({ note }: TestContext, mostCached: number | null): void {
  if (mostCached === null)
    note('the server does not report cached_tokens, so it is unknown whether its cache was used');
  if (mostCached === 0) {
    throw new DetinferError(
      'BAD_RESPONSE',
      'no request was answered from the prefix cache: is it disabled (--disable-radix-cache)?',
    );
  }
}
