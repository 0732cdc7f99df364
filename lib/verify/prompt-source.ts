import { generate, type Prompt } from '../client/generate.js';
import { HttpStatusError, type HttpClient } from '../client/http.js';
import { SeededRandom } from '../client/random.js';
import type { ServerFacts } from '../client/server-facts.js';
import { DetinferError } from '../protocol/errors.js';
import { LONG_PROMPT, SECOND_SHORT_PROMPT, SHORT_PROMPT } from './texts.js';
import type { TestOptions } from './types.js';

/** Lengths of ids prompts are those of the texts divided by this, about the tokens that the texts would have. */
const CHARACTERS_PER_TOKEN = 4;
/** Characters. */
const LONGEST_SHORT_SLICE = 256;
/** Room in the context for a start token and for servers that keep the last positions to themselves. */
const RESERVED_TOKENS = 8;
/** How much denser than its measured part the rest of a text may be. */
const DENSITY_MARGIN = 1.15;

/** The fixed prompts of a test, as text or as ids, none longer than the server's context allows. */
export interface PromptSource {
  kind: 'text' | 'ids';
  unit: 'characters' | 'tokens';
  /** Longest prompt, in units. */
  longest: number;
  short: Prompt;
  secondShort: Prompt;
  /** The length in units that stands for this many characters. */
  unitsOf(characters: number): number;
  /** Units begin … end-1 of the long prompt, which has at least `longest`. */
  part(begin: number, end: number): Prompt;
}

/**
 * Text prompts if the server takes them, random ids if it serves without a tokenizer.
 * @throws DetinferError when neither works or the context leaves no room for a prompt.
 */
export async function choosePrompts(
  client: HttpClient,
  server: ServerFacts,
  options: TestOptions,
): Promise<{ prompts: PromptSource; notes: string[] }> {
  const notes: string[] = [];
  const refusal = server.skipTokenizerInit ? 'the server runs without a tokenizer' : await textRefusal(client);
  const room = roomForPrompts(server, options);
  if (refusal === null) return { prompts: textPrompts(await longestText(client, server, room)), notes };
  const vocabSize = requireVocabSize(server, options, refusal);
  notes.push(`${refusal}: prompts are random token ids below ${vocabSize}`);
  return { prompts: idPrompts(vocabSize, options.randomSeed, room), notes };
}

/** A random slice of the long prompt: a short one, or one that may be as long as the whole. */
export function randomSlice(prompts: PromptSource, random: SeededRandom, mayBeLong: boolean): Prompt {
  const longestShort = Math.min(prompts.unitsOf(LONGEST_SHORT_SLICE), prompts.longest);
  const length = random.integer(1, mayBeLong ? prompts.longest : longestShort);
  const begin = random.next() < 0.3 ? 0 : random.integer(0, prompts.longest - length);
  return prompts.part(begin, begin + length);
}

/** The size of the vocabulary, for prompts of random ids. */
export function requireVocabSize(server: ServerFacts, options: TestOptions, why: string): number {
  const vocabSize = options.vocabSize ?? server.vocabSize;
  if (vocabSize !== null) return vocabSize;
  throw new DetinferError(
    'INVALID_FLAG',
    `${why}, so random token ids are sent, and the server does not report its vocabulary: pass --vocab-size`,
  );
}

/** Why the server takes no text, or null if it does. */
async function textRefusal(client: HttpClient): Promise<string | null> {
  try {
    await generate(client, { prompts: [SHORT_PROMPT], sampling: { max_new_tokens: 1, temperature: 0 } });
    return null;
  } catch (error) {
    if (error instanceof HttpStatusError && error.httpStatus === 400)
      return `the server refused text (${error.message})`;
    throw error;
  }
}

/** Tokens that a prompt may have; Infinity if the server doesn't say. */
function roomForPrompts(server: ServerFacts, options: TestOptions): number {
  if (server.contextLength === null) return Infinity;
  const room = server.contextLength - options.maxNewTokens - RESERVED_TOKENS;
  if (room >= RESERVED_TOKENS) return room;
  throw new DetinferError(
    'INVALID_FLAG',
    `--max-new-tokens ${options.maxNewTokens} leaves no room for a prompt in the server's context of ` +
      `${server.contextLength} tokens: pass a smaller number`,
  );
}

/** Characters of the long prompt that surely fit: a token has one character at least, and more by measurement. */
async function longestText(client: HttpClient, server: ServerFacts, room: number): Promise<number> {
  if (LONG_PROMPT.length <= room) return LONG_PROMPT.length;
  const measured = LONG_PROMPT.slice(0, Math.min(1024, room));
  const [answer] = await generate(client, { prompts: [measured], sampling: { max_new_tokens: 1, temperature: 0 } });
  const tokens = answer?.promptTokens;
  if (!tokens) {
    throw new DetinferError(
      'BAD_RESPONSE',
      `the server reports no prompt_tokens, so it is unknown what fits into its context of ` +
        `${server.contextLength} tokens`,
    );
  }
  return Math.min(LONG_PROMPT.length, Math.floor((room * measured.length) / (tokens * DENSITY_MARGIN)));
}

function textPrompts(longest: number): PromptSource {
  return {
    kind: 'text',
    unit: 'characters',
    longest,
    short: SHORT_PROMPT.slice(0, longest),
    secondShort: SECOND_SHORT_PROMPT.slice(0, longest),
    unitsOf: (characters) => characters,
    part: (begin, end) => LONG_PROMPT.slice(begin, end),
  };
}

function idPrompts(vocabSize: number, seed: number, room: number): PromptSource {
  const random = new SeededRandom(seed);
  const tokensOf = (characters: number): number => Math.ceil(characters / CHARACTERS_PER_TOKEN);
  const long = random.tokenIds(tokensOf(LONG_PROMPT.length), vocabSize);
  const longest = Math.min(long.length, room);
  return {
    kind: 'ids',
    unit: 'tokens',
    longest,
    short: random.tokenIds(Math.min(tokensOf(SHORT_PROMPT.length), longest), vocabSize),
    secondShort: random.tokenIds(Math.min(tokensOf(SECOND_SHORT_PROMPT.length), longest), vocabSize),
    unitsOf: tokensOf,
    part: (begin, end) => long.slice(begin, end),
  };
}
