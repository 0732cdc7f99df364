import { DetinferError } from '../protocol/errors.js';

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
