import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';

import { DetinferError, toErrorData } from '../../protocol/errors.js';
import type { ServerContext } from '../context.js';
import { errorBody } from '../errors.js';
import { EventStream } from '../event-stream.js';
import type { Frontend } from '../frontend.js';
import type { Generation } from '../generation.js';
import { readGenerateRequest } from '../validate.js';

/** POST or PUT /generate. */
export function generateRoutes(app: FastifyInstance, context: ServerContext): void {
  const { frontend } = context;
  app.route({
    method: ['POST', 'PUT'],
    url: '/generate',
    async handler(request: FastifyRequest, reply: FastifyReply) {
      const body = readGenerateRequest(request.body, frontend.limits);
      const generation = frontend.generate(body);
      abandonOnDisconnect(frontend, generation, reply);
      if (context.args.logRequests) logRequest(context, generation);
      if (!body.stream) {
        await generation.done;
        return reply.type('application/json; charset=utf-8').send(generation.render());
      }
      reply.hijack();
      return stream(reply, generation);
    },
  });
}

function abandonOnDisconnect(frontend: Frontend, generation: Generation, { raw }: FastifyReply): void {
  const abandon = (): void => {
    if (!raw.writableFinished)
      frontend.abandon(generation, new DetinferError('INVALID_REQUEST', 'the client disconnected'));
  };
  if (raw.closed) abandon();
  else raw.once('close', abandon);
}

/** Sends every update as a data event; an error is one, too. */
async function stream(reply: FastifyReply, generation: Generation): Promise<void> {
  const { sequences, isList } = generation;
  const events = new EventStream(reply.raw, (index) => sequences[index]!.render(isList ? index : undefined));
  generation.onUpdate = (index) => events.update(index);
  try {
    await generation.done;
    events.end('[DONE]');
  } catch (error) {
    const { code, message } = toErrorData(error);
    events.end(JSON.stringify(errorBody(new DetinferError(code, message))), '[DONE]');
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
