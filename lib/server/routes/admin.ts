import { setTimeout as sleep } from 'node:timers/promises';

import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';

import type { ServerContext } from '../context.js';
import { badValue } from '../errors.js';
import { bodyFields, boolean, string } from '../fields.js';
import type { Frontend } from '../frontend.js';

const MAX_WAIT_S = 3600;
const RETRY_MS = 20;

/** GET or POST /flush_cache and POST /abort_request. */
export function adminRoutes(app: FastifyInstance, { frontend, log }: ServerContext): void {
  app.route({
    method: ['GET', 'POST'],
    url: '/flush_cache',
    async handler(request: FastifyRequest, reply: FastifyReply) {
      const { success, message } = await flush(frontend, timeoutOf(request));
      log('info', `flush_cache: ${message}`);
      return reply
        .code(success ? 200 : 400)
        .type('text/plain; charset=utf-8')
        .send(`${message}\n`);
    },
  });

  app.post('/abort_request', (request, reply) => {
    const fields = bodyFields(request.body);
    const abortAll = fields.get('abort_all', boolean, false);
    const rid = fields.get('rid', string, '');
    if (!abortAll && rid === '') throw badValue('Give the rid of a request, or abort_all: true.');
    frontend.abort(abortAll ? null : rid, 'aborted by /abort_request');
    return reply.code(200).send();
  });
}

/** ?timeout= in seconds: how long to wait for running requests. */
function timeoutOf(request: FastifyRequest): number {
  const { timeout } = request.query as { timeout?: string };
  if (timeout === undefined) return 0;
  const seconds = Number(timeout);
  if (timeout === '' || !(seconds >= 0 && seconds <= MAX_WAIT_S)) {
    throw badValue(`timeout must be a number of seconds from 0 to ${MAX_WAIT_S}.`);
  }
  return seconds * 1000;
}

async function flush(frontend: Frontend, limitMs: number): Promise<{ success: boolean; message: string }> {
  const deadline = performance.now() + limitMs;
  for (;;) {
    const result = await frontend.readyWorkers.flushCache();
    const left = deadline - performance.now();
    if (result.success || left <= 0) return result;
    await frontend.untilIdle(left);
    // Even then the worker may need a moment, to abort what nobody waits for.
    await sleep(RETRY_MS);
  }
}
