import { DetinferError } from '../protocol/errors.js';
import type { HttpClient } from './http.js';

/** Text, or token ids. */
export type Prompt = string | number[];

/** `[logprob, token id, text]` as the API writes it; the first prompt entry's logprob is null. */
export type LogprobEntry = [logprob: number | null, tokenId: number, text: string | null];

/** One finished answer of /generate. null: the server did not report it. */
export interface Answer {
  text: string | null;
  outputIds: number[] | null;
  /** As JSON, for example {"type":"length","length":8}. */
  finishReason: string;
  promptTokens: number | null;
  completionTokens: number | null;
  cachedTokens: number | null;
  inputLogprobs: LogprobEntry[] | null;
  outputLogprobs: LogprobEntry[] | null;
  /** For every scored prompt position the logprobs of the ids asked for. */
  inputTokenIdsLogprobs: (LogprobEntry[] | null)[] | null;
  /** The answer as it came, for fields that are not named here. */
  raw: Record<string, unknown>;
}

/** A batch for /generate: all prompts are text, or all are ids. Sampling parameters are shared or one per prompt. */
export interface GenerateRequest {
  prompts: Prompt[];
  sampling: Record<string, unknown> | Record<string, unknown>[];
  returnLogprob?: boolean;
  /** First prompt position that gets a logprob. Absent: none do. */
  logprobStart?: number;
  /** Most likely tokens at every position that are wanted with their logprobs. */
  topLogprobs?: number;
  /** Ids whose logprobs are wanted at every position. */
  tokenIds?: number[];
  stream?: boolean;
}

/**
 * Sends one batch and returns its answers, in the order of the prompts.
 * @throws DetinferError UNREACHABLE, or BAD_RESPONSE when an answer is missing, aborted or incomplete.
 */
export async function generate(client: HttpClient, request: GenerateRequest): Promise<Answer[]> {
  const body = requestBody(request);
  const items = request.stream ? await lastEvents(client, body) : await client.json('POST', '/generate', body);
  if (!Array.isArray(items)) throw badAnswer('an answer to a batch that is not a list', items);
  if (items.length !== request.prompts.length) {
    throw new DetinferError(
      'BAD_RESPONSE',
      `POST /generate: ${request.prompts.length} prompts got ${items.length} answers`,
    );
  }
  return items.map(parseAnswer);
}

function requestBody(request: GenerateRequest): object {
  const { prompts, sampling, returnLogprob, logprobStart, topLogprobs, tokenIds, stream } = request;
  return {
    [typeof prompts[0] === 'string' ? 'text' : 'input_ids']: prompts,
    sampling_params: sampling,
    ...(returnLogprob ? { return_logprob: true, return_text_in_logprobs: true } : {}),
    ...(logprobStart === undefined ? {} : { logprob_start_len: logprobStart }),
    ...(topLogprobs === undefined ? {} : { top_logprobs_num: topLogprobs }),
    ...(tokenIds === undefined ? {} : { token_ids_logprob: tokenIds }),
    ...(stream ? { stream: true } : {}),
  };
}

/** Text and ids of a stream are cumulative, so the last event of each item is its answer. */
async function lastEvents(client: HttpClient, body: object): Promise<unknown[]> {
  const items: unknown[] = [];
  for await (const payload of client.events('/generate', body)) {
    let event: { index?: number; error?: { message?: string } };
    try {
      event = JSON.parse(payload) as typeof event;
    } catch {
      throw badAnswer('an event that is not JSON', payload);
    }
    if (event.error) throw badAnswer('an error in the stream', event.error.message ?? event.error);
    items[event.index ?? 0] = event;
  }
  return items;
}

/** Checks that an answer is finished and has something to compare. */
function parseAnswer(item: unknown): Answer {
  if (typeof item !== 'object' || item === null) throw badAnswer('an answer that is not an object', item);
  const { text, output_ids: outputIds, meta_info: meta } = item as Record<string, unknown>;
  if (typeof meta !== 'object' || meta === null) throw badAnswer('an answer without meta_info', item);
  const info = meta as Record<string, unknown>;
  const finish = info.finish_reason as { type?: string; message?: string } | null | undefined;
  if (finish === null || finish === undefined) throw badAnswer('an answer that is not finished', item);
  if (finish.type === 'abort') throw badAnswer('an aborted request', finish.message ?? finish);
  if (typeof text !== 'string' && !Array.isArray(outputIds)) {
    throw badAnswer('neither text nor output_ids', item);
  }
  return {
    text: typeof text === 'string' ? text : null,
    outputIds: Array.isArray(outputIds) ? (outputIds as number[]) : null,
    finishReason: JSON.stringify(finish),
    promptTokens: numberOrNull(info.prompt_tokens),
    completionTokens: numberOrNull(info.completion_tokens),
    cachedTokens: numberOrNull(info.cached_tokens),
    inputLogprobs: entriesOrNull(info.input_token_logprobs),
    outputLogprobs: entriesOrNull(info.output_token_logprobs),
    inputTokenIdsLogprobs: arrayOrNull(info.input_token_ids_logprobs) as Answer['inputTokenIdsLogprobs'],
    raw: item as Record<string, unknown>,
  };
}

function entriesOrNull(value: unknown): LogprobEntry[] | null {
  const entries = arrayOrNull(value);
  if (entries === null) return null;
  for (const entry of entries) {
    const [logprob, tokenId] = Array.isArray(entry) ? (entry as unknown[]) : [];
    if (!Number.isInteger(tokenId) || (logprob !== null && typeof logprob !== 'number')) {
      throw badAnswer('a logprob entry that is not [logprob, token id, text]', entry);
    }
  }
  return entries as LogprobEntry[];
}

function arrayOrNull(value: unknown): unknown[] | null {
  return Array.isArray(value) ? value : null;
}

function numberOrNull(value: unknown): number | null {
  return typeof value === 'number' ? value : null;
}

function badAnswer(what: string, value: unknown): DetinferError {
  const shown = typeof value === 'string' ? value : (JSON.stringify(value) ?? 'undefined');
  return new DetinferError('BAD_RESPONSE', `POST /generate returned ${what}: ${shown.slice(0, 300)}`);
}
