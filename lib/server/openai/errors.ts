import type { DetinferError } from '../../protocol/errors.js';
import { SchemaError } from '../errors.js';

/**
 * The body of an error of the OpenAI endpoints: SGLang's flat fields, and the same once more as the `error` object that
 * OpenAI's clients read.
 */
export function openAIErrorBody(error: DetinferError): object {
  const details = {
    message: error.message,
    type: typeOf(error.status),
    param: error instanceof SchemaError ? error.param : null,
    code: error.status,
  };
  return { object: 'error', ...details, error: { ...details, code: error.code } };
}

function typeOf(status: number): string {
  if (status === 404) return 'NotFoundError';
  if (status === 503) return 'ServiceUnavailableError';
  return status < 500 ? 'BadRequestError' : 'InternalServerError';
}
