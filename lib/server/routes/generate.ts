import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';

import { answer } from '../answer.js';
import type { ServerContext } from '../context.js';
import { errorBody } from '../errors.js';
import { readGenerateRequest } from '../validate.js';

/** POST or PUT /generate. */
export function generateRoutes(app: FastifyInstance, context: ServerContext): void {
  app.route({
    method: ['POST', 'PUT'],
    url: '/generate',
    async handler(request: FastifyRequest, reply: FastifyReply) {
      const body = readGenerateRequest(request.body, context.frontend.limits);
      return answer(context, reply, body, (generation) => ({
        whole: () => generation.render(),
        news: (index) => [generation.sequences[index]!.render(generation.isList ? index : undefined)],
        last: () => [],
        failure: (error) => JSON.stringify(errorBody(error)),
      }));
    },
  });
}
