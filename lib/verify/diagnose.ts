import { generate, type Prompt } from '../client/generate.js';
import type { HttpClient } from '../client/http.js';
import { DetinferError } from '../protocol/errors.js';
import type { AnswerSet, Check } from './answer-set.js';
import type { TestContext } from './context.js';
import { samplingParams } from './context.js';
import type { Difference } from './types.js';

/** Questions of one check whose differences are shown; the first few say it all. */
const SHOWN_DIFFERENCES = 3;

/**
 * The differences of a check, with what the server can add: the texts of the tokens and, where the answers came
 * without logprobs, those of the two tokens scored afterwards. What the server can't tell stays null.
 */
export async function differencesOf(context: TestContext, check: Check): Promise<Difference[]> {
  const differences: Difference[] = [];
  for (const set of check.sets) {
    if (differences.length === SHOWN_DIFFERENCES) break;
    const difference = set.difference();
    if (difference === null) continue;
    if (difference.kind === 'token' && difference.sides[0].logprob === null)
      await bestEffort(() => score(context, set, difference));
    for (const side of difference.sides) {
      if (side.tokenId !== null)
        side.tokenText = await bestEffort(() => detokenize(context.client, side.tokenId as number));
    }
    differences.push(difference);
  }
  return differences;
}

/** A server in trouble must not hide the difference that was found. */
async function bestEffort<T>(action: () => Promise<T>): Promise<T | null> {
  try {
    return await action();
  } catch (error) {
    if (error instanceof DetinferError) return null;
    throw error;
  }
}

async function detokenize(client: HttpClient, tokenId: number): Promise<string | null> {
  const body = await client.json('POST', '/detokenize', { tokens: [tokenId], skip_special_tokens: false });
  const { text } = body as { text?: unknown };
  return typeof text === 'string' ? text : null;
}

/** Puts the logprobs of both tokens, after the prompt and the output that they share, into the difference. */
async function score({ client, options }: TestContext, set: AnswerSet, difference: Difference): Promise<void> {
  const [a, b] = difference.sides;
  if (a.tokenId === null || b.tokenId === null) return;
  const ids = [...(await promptIds(client, set.prompt)), ...set.idsBefore(difference.position), a.tokenId];
  const [answer] = await generate(client, {
    prompts: [ids],
    sampling: { ...samplingParams(options, true), max_new_tokens: 0 },
    returnLogprob: true,
    logprobStart: 0,
    tokenIds: [a.tokenId, b.tokenId],
  });
  const [first, second] = answer?.inputTokenIdsLogprobs?.at(-1) ?? [];
  a.logprob = first?.[0] ?? null;
  b.logprob = second?.[0] ?? null;
  difference.scoredAfterwards = a.logprob !== null;
}

/** The ids of a text, from its logprobs: /generate is the one endpoint that every such server has. */
async function promptIds(client: HttpClient, prompt: Prompt): Promise<number[]> {
  if (typeof prompt !== 'string') return prompt;
  const sampling = { max_new_tokens: 0, temperature: 0 };
  const [answer] = await generate(client, { prompts: [prompt], sampling, returnLogprob: true, logprobStart: 0 });
  return (answer?.inputLogprobs ?? []).map((entry) => entry[1]);
}
