import type { Sample } from './answer-set.js';
import type { Difference, DifferenceSide, Origin } from './types.js';

interface Located {
  sample: Sample;
  origin: Origin;
}

const EXCERPT_LENGTH = 40;

/** The first place where two different samples part. */
export function firstDifference(a: Located, b: Located): Difference {
  return (
    tokenDifference(a, b) ??
    textDifference('text', a, a.sample.text, b, b.sample.text) ??
    textDifference('field', a, a.sample.otherFields, b, b.sample.otherFields) ??
    finishDifference(a, b)
  );
}

/** Tokens and logprobs are walked together: whichever differs first is the cause of what follows. */
function tokenDifference(a: Located, b: Located): Difference | null {
  const [idsA, idsB] = [a.sample.ids ?? [], b.sample.ids ?? []];
  const [logprobsA, logprobsB] = [a.sample.logprobs ?? [], b.sample.logprobs ?? []];
  const length = Math.max(idsA.length, idsB.length, logprobsA.length, logprobsB.length);
  for (let i = 0; i < length; i++) {
    const sameToken = idsA[i] === idsB[i];
    if (sameToken && logprobsA[i] === logprobsB[i]) continue;
    const ended = i >= idsA.length || i >= idsB.length;
    const inPrompt = i < a.sample.promptLength;
    return {
      kind: ended && !sameToken ? 'length' : sameToken ? 'logprob' : 'token',
      position: inPrompt ? i : i - a.sample.promptLength,
      part: inPrompt ? 'prompt' : 'output',
      sides: [tokenSide(a, i), tokenSide(b, i)],
      scoredAfterwards: false,
    };
  }
  return null;
}

function textDifference(
  kind: 'text' | 'field',
  a: Located,
  ofA: string | null | undefined,
  b: Located,
  ofB: string | null | undefined,
): Difference | null {
  const [textA, textB] = [ofA ?? '', ofB ?? ''];
  if (textA === textB) return null;
  let position = 0;
  while (textA[position] === textB[position]) position++;
  const excerpt = (text: string): string => text.slice(position, position + EXCERPT_LENGTH);
  return {
    kind,
    position,
    part: 'output',
    sides: [
      { ...emptySide(a.origin), excerpt: excerpt(textA) },
      { ...emptySide(b.origin), excerpt: excerpt(textB) },
    ],
    scoredAfterwards: false,
  };
}

function finishDifference(a: Located, b: Located): Difference {
  return {
    kind: 'finish reason',
    position: a.sample.ids?.length ?? 0,
    part: 'output',
    sides: [
      { ...emptySide(a.origin), excerpt: a.sample.finishReason },
      { ...emptySide(b.origin), excerpt: b.sample.finishReason },
    ],
    scoredAfterwards: false,
  };
}

function tokenSide({ sample, origin }: Located, index: number): DifferenceSide {
  return { ...emptySide(origin), tokenId: sample.ids?.[index] ?? null, logprob: sample.logprobs?.[index] ?? null };
}

function emptySide(origin: Origin): DifferenceSide {
  return { origin, tokenId: null, tokenText: null, logprob: null, excerpt: null };
}
