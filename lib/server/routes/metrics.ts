import type { FastifyInstance } from 'fastify';

import type { Metrics } from '../metrics.js';

/** GET /metrics: Prometheus' text format. */
export function metricsRoute(app: FastifyInstance, metrics: Metrics): void {
  app.get('/metrics', async (_request, reply) => {
    const text = await metrics.render();
    return reply.type(metrics.contentType).send(text);
  });
}
