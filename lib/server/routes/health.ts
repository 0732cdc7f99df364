import type { FastifyInstance } from 'fastify';

import type { ServerContext } from '../context.js';

const PROBE_LIMIT_MS = 20_000;

/** GET /health and /health_generate: 200 or 503, without a body. The second runs a token through the model. */
export function healthRoutes(app: FastifyInstance, { frontend }: ServerContext): void {
  app.get('/health', (_request, reply) => reply.code(frontend.isReady ? 200 : 503).send());
  app.get('/health_generate', async (_request, reply) => {
    return reply.code((await frontend.isAlive(PROBE_LIMIT_MS)) ? 200 : 503).send();
  });
}
