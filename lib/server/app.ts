import Fastify, { type FastifyError, type FastifyInstance, type FastifyRequest } from 'fastify';

import type { DetinferError } from '../protocol/errors.js';
import { requireApiKey } from './api-key.js';
import type { ServerContext } from './context.js';
import { errorBody, SchemaError, sendError } from './errors.js';
import { adminRoutes } from './routes/admin.js';
import { generateRoutes } from './routes/generate.js';
import { healthRoutes } from './routes/health.js';
import { infoRoutes } from './routes/info.js';
import type { Metrics } from './metrics.js';
import { metricsRoute } from './routes/metrics.js';
import { notFoundRoute } from './routes/not-found.js';
import { openAIRoutes } from './routes/openai.js';
import { tokenizeRoutes } from './routes/tokenize.js';
import { trainingRoutes } from './routes/training.js';

/** How long a client may take to send a request. */
const RECEIVE_LIMIT_MS = 120_000;

const JSON_TYPE = /^application\/(?:[\w.-]+\+)?json\b/i;
const utf8 = new TextDecoder('utf-8', { fatal: true });

/** The HTTP application, not listening yet. */
export function createApp(context: ServerContext): FastifyInstance {
  const app = Fastify({
    bodyLimit: context.args.maxBodySize,
    requestTimeout: RECEIVE_LIMIT_MS,
    forceCloseConnections: 'idle',
    logger: false,
  });
  if (context.args.apiKey !== null) requireApiKey(app, context.args.apiKey);
  if (context.metrics) countResponses(app, context.metrics);
  parseJsonBodies(app);
  app.setErrorHandler((error: FastifyError | DetinferError, _request, reply) =>
    sendError(reply, error, context.log, errorBody),
  );
  notFoundRoute(app);
  healthRoutes(app, context);
  infoRoutes(app, context);
  generateRoutes(app, context);
  openAIRoutes(app, context);
  adminRoutes(app, context);
  tokenizeRoutes(app, context);
  trainingRoutes(app, context);
  if (context.metrics) metricsRoute(app, context.metrics);
  return app;
}

function countResponses(app: FastifyInstance, metrics: Metrics): void {
  app.addHook('onResponse', async (_request, reply) => metrics.answered(reply.statusCode));
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
