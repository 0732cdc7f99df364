import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';

import { answer } from '../answer.js';
import type { ServerContext } from '../context.js';
import { SchemaError, sendError } from '../errors.js';
import { ChatAnswer } from '../openai/chat-answer.js';
import { readChatRequest } from '../openai/chat-request.js';
import { CompletionAnswer } from '../openai/completion-answer.js';
import { readCompletionRequest } from '../openai/completion-request.js';
import { openAIErrorBody } from '../openai/errors.js';
import type { ServerFacts } from '../openai/request.js';

/** POST /v1/completions and /v1/chat/completions, GET /v1/models. */
export function openAIRoutes(app: FastifyInstance, context: ServerContext): void {
  const { args, frontend } = context;
  const { tokenizer } = frontend;
  const errorHandler = (error: FastifyError, _request: FastifyRequest, reply: FastifyReply) =>
    sendError(reply, error, context.log, openAIErrorBody);
  const facts = (): ServerFacts => {
    const { contextLength } = frontend.readyWorkers.info;
    return { ...frontend.limits, contextLength, servedModelName: args.servedModelName };
  };

  app.post('/v1/completions', { errorHandler }, async (request, reply) => {
    const { generate, answer: options } = readCompletionRequest(request.body, facts(), tokenizer);
    return answer(
      context,
      reply,
      generate,
      (generation) => new CompletionAnswer(generation, options, tokenizer!),
    );
  });

  app.post('/v1/chat/completions', { errorHandler }, async (request, reply) => {
    const { generate, answer: options } = readChatRequest(request.body, facts(), context.chatTemplate);
    return answer(
      context,
      reply,
      generate,
      (generation) => new ChatAnswer(generation, options, tokenizer!),
    );
  });

  const created = Math.floor(Date.now() / 1000);
  const model = (): object => {
    const { contextLength } = frontend.readyWorkers.info;
    const names = { id: args.servedModelName, root: frontend.weights.modelPath, parent: null };
    return { ...names, object: 'model', created, owned_by: 'detinfer', max_model_len: contextLength };
  };
  app.get('/v1/models', { errorHandler }, () => ({ object: 'list', data: [model()] }));
  // A name may have slashes, which not every client escapes.
  app.get<{ Params: { '*': string } }>('/v1/models/*', { errorHandler }, (request) => {
    const name = request.params['*'];
    if (name === args.servedModelName) return model();
    throw new SchemaError('model', `There is no model ${name}; this server has ${args.servedModelName}.`, 404);
  });
}
