import Fastify, { type FastifyError, type FastifyInstance, type FastifyRequest } from 'fastify';

import type { DetinferError } from '../protocol/errors.js';
import type { ServerContext } from './context.js';
import { errorBody, SchemaError, toKnownError } from './errors.js';
import { adminRoutes } from './routes/admin.js';
import { generateRoutes } from './routes/generate.js';
import { healthRoutes } from './routes/health.js';
import { infoRoutes } from './routes/info.js';
import { notFoundRoute } from './routes/not-found.js';
import { openAIRoutes } from './routes/openai.js';
import { tokenizeRoutes } from './routes/tokenize.js';

/** Bytes of a body. A batch of a thousand prompts of ten thousand ids each fits. */
const BODY_LIMIT = 64 * 1024 * 1024;

const JSON_TYPE = /^application\/(?:[\w.-]+\+)?json\b/i;
const utf8 = new TextDecoder('utf-8', { fatal: true });

/** The HTTP application, not listening yet. */
export function createApp(context: ServerContext): FastifyInstance {
  const app = Fastify({ bodyLimit: BODY_LIMIT, forceCloseConnections: 'idle', logger: false });
  parseJsonBodies(app);
  app.setErrorHandler((error: FastifyError | DetinferError, _request, reply) => {
    const known = toKnownError(error, context.log);
    return reply.code(known.status).send(errorBody(known));
  });
  notFoundRoute(app);
  healthRoutes(app, context);
  infoRoutes(app, context);
  generateRoutes(app, context);
  openAIRoutes(app, context);
  adminRoutes(app, context);
  tokenizeRoutes(app, context);
  return app;
}

/** JSON, and nothing else; a body without a content type is taken for JSON. */
function parseJsonBodies(app: FastifyInstance): void {
  app.removeAllContentTypeParsers();
  app.addContentTypeParser<Buffer>('*', { parseAs: 'buffer' }, async (request: FastifyRequest, body: Buffer) => {
    const type = request.headers['content-type'] ?? 'application/json';
    if (body.length === 0) return undefined;
    if (JSON_TYPE.test(type)) return parseJson(body);
    throw new SchemaError(
      null,
      `The body is ${type.slice(0, 100)}; it must be JSON, with Content-Type: application/json.`,
    );
  });
}

function parseJson(body: Buffer): unknown {
  let text: string;
  try {
    text = utf8.decode(body);
  } catch {
    throw new SchemaError(null, 'The body is not valid UTF-8.');
  }
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new SchemaError(null, `The body is not valid JSON: ${(error as Error).message}`);
  }
}
