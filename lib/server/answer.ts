import type { FastifyReply } from 'fastify';

import { DetinferError, fromErrorData, toErrorData } from '../protocol/errors.js';
import type { ServerContext } from './context.js';
import { EventStream } from './event-stream.js';
import type { Frontend } from './frontend.js';
import type { Generation } from './generation.js';
import type { GenerateRequest } from './validate.js';

/** How the answer to a request is written. */
export interface AnswerForm {
  /** The whole answer as JSON, once everything has finished. */
  whole(): string;
  /** Events of a stream that say what is new of the sequence at `index`, as JSON. */
  news(index: number): string[];
  /** Events that end a stream, before [DONE]. */
  last(): string[];
  /** The event that ends a stream which failed. */
  failure(error: DetinferError): string;
}

/**
 * Runs a request and answers it, as one body or as a stream.
 * @throws DetinferError what ended the request, before a stream began.
 */
export async function answer(
  context: ServerContext,
  reply: FastifyReply,
  request: GenerateRequest,
  formOf: (generation: Generation) => AnswerForm,
): Promise<unknown> {
  if (request.prompts.some(({ withReceipt }) => withReceipt)) await context.frontend.receipts.prepare();
  const generation = context.frontend.generate(request);
  const form = formOf(generation);
  abandonOnDisconnect(context.frontend, generation, reply);
  if (context.args.logRequests) logRequest(context, generation);
  if (!request.stream) {
    await generation.done;
    return reply.type('application/json; charset=utf-8').send(form.whole());
  }
  reply.hijack();
  return stream(reply, generation, form);
}

function abandonOnDisconnect(frontend: Frontend, generation: Generation, { raw }: FastifyReply): void {
  const abandon = (): void => {
    if (!raw.writableFinished)
      frontend.abandon(generation, new DetinferError('INVALID_REQUEST', 'the client disconnected'));
  };
  if (raw.closed) abandon();
  else raw.once('close', abandon);
}

/** Sends every update as data events; an error is one, too. */
async function stream(reply: FastifyReply, generation: Generation, form: AnswerForm): Promise<void> {
  const events = new EventStream(reply.raw, (index) => form.news(index));
  generation.onUpdate = (index) => events.update(index);
  try {
    await generation.done;
    events.end(...form.last(), '[DONE]');
  } catch (error) {
    const failure = form.failure(fromErrorData(toErrorData(error)));
    events.end(failure, '[DONE]');
  }
}

function logRequest({ log }: ServerContext, generation: Generation): void {
  for (const { rid, workerRequest } of generation.sequences) {
    const { inputIds, sampling, stop } = workerRequest;
    const params = { ...sampling, ...stop };
    const fields = { rid, prompt_tokens: inputIds.length, params };
    log('info', `request ${rid}: ${inputIds.length} prompt tokens, ${JSON.stringify(params)}`, fields);
  }
  const ended = () => {
    for (const { rid, tokens, finish } of generation.sequences) {
      const fields = { rid, completion_tokens: tokens.length, finish_reason: finish };
      log('info', `request ${rid}: ended after ${tokens.length} tokens, ${JSON.stringify(finish)}`, fields);
    }
  };
  generation.done.then(ended, ended);
}
