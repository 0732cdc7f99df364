import type { FastifyError, FastifyReply } from 'fastify';

import { DetinferError } from '../protocol/errors.js';
import type { Log } from './context.js';

/** When to try again after a 503, in seconds. */
const RETRY_AFTER_S = 1;

/** A body that doesn't fit the schema: a field of the wrong type, JSON that can't be parsed. */
export class SchemaError extends DetinferError {
  /** @param param path of the field, or null for the body as a whole. */
  constructor(
    readonly param: string | null,
    message: string,
    /** HTTP status: 400, or what describes the body better. */
    override readonly status: number = 400,
  ) {
    super('INVALID_REQUEST', message);
  }
}

export function badValue(message: string): DetinferError {
  return new DetinferError('INVALID_REQUEST', message);
}

/** The body of an answer that is an error, in the shapes that SGLang's clients know. */
export function errorBody(error: DetinferError): object {
  if (error instanceof SchemaError) {
    const { message, param, status } = error;
    return { object: 'error', message, type: 'Bad Request', param, code: status };
  }
  if (error.code === 'UNAUTHORIZED') return { error: 'Unauthorized' };
  return { error: { message: error.message, code: error.code } };
}

/**
 * Answers with what a handler threw.
 * @param bodyOf the form of errors at this endpoint. A missing key has one form everywhere.
 */
export function sendError(
  reply: FastifyReply,
  thrown: FastifyError | DetinferError,
  log: Log,
  bodyOf: (error: DetinferError) => object,
): FastifyReply {
  const error = toKnownError(thrown, log);
  if (error.status === 503) reply.header('retry-after', RETRY_AFTER_S);
  return reply.code(error.status).send(error.code === 'UNAUTHORIZED' ? errorBody(error) : bodyOf(error));
}

/** Whatever a handler threw, as an error that can be shown; what nobody foresaw is logged. */
function toKnownError(error: FastifyError | DetinferError, log: Log): DetinferError {
  if (error instanceof DetinferError) return error;
  // Fastify's own: a body that is too large, a bad URL.
  const status = error.statusCode;
  if (status !== undefined && status >= 400 && status < 500) return new SchemaError(null, error.message, status);
  log('error', `unexpected error: ${error.stack ?? error.message}`);
  return new DetinferError('ENGINE_FAILED', `Unexpected error: ${error.message}`);
}
