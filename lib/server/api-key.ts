import { createHash, timingSafeEqual } from 'node:crypto';

import type { FastifyInstance } from 'fastify';

import { DetinferError } from '../protocol/errors.js';

/** What probes and scrapers ask for; it says nothing of requests. */
const OPEN_PATHS = new Set(['/health', '/health_generate', '/metrics']);

/** Refuses every request but those for OPEN_PATHS with 401, unless it brings the key as a bearer token. */
export function requireApiKey(app: FastifyInstance, key: string): void {
  const expected = digest(`Bearer ${key}`);
  app.addHook('onRequest', async (request, reply) => {
    if (OPEN_PATHS.has(request.url.split('?', 1)[0]!)) return;
    if (timingSafeEqual(digest(request.headers.authorization ?? ''), expected)) return;
    reply.header('www-authenticate', 'Bearer');
    throw new DetinferError('UNAUTHORIZED', 'Send the key of this server as Authorization: Bearer KEY.');
  });
}

/** Of one length for every key, so that comparing takes as long for each. */
function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
