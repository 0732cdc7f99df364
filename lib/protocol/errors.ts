/**
 * Every error that a user can meet. The code is stable and documented in docs/errors.md;
 * `status` is the HTTP status where the error ends a request.
 */
export const ERRORS = {
  INVALID_FLAG: 400,
  INVALID_MODEL: 400,
  INVALID_WEIGHTS: 400,
  ACCESS_DENIED: 403,
  DOWNLOAD_FAILED: 502,
  UNSUPPORTED: 400,
  INVALID_REQUEST: 400,
  INVALID_RECEIPT: 400,
  UNAUTHORIZED: 401,
  OUT_OF_MEMORY: 500,
  ENGINE_FAILED: 500,
  WORKER_DIED: 500,
  NOT_READY: 503,
  OVERLOADED: 503,
  SHUTTING_DOWN: 503,
  TIMED_OUT: 504,
  UNREACHABLE: 503,
  BAD_RESPONSE: 502,
} as const;

export type ErrorCode = keyof typeof ERRORS;

/** An error with a stable code and a message that says what to do about it. */
export class DetinferError extends Error {
  readonly code: ErrorCode;
  readonly status: number;

  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'DetinferError';
    this.code = code;
    this.status = ERRORS[code];
  }
}

/** An error as it crosses a process boundary. */
export interface ErrorData {
  code: ErrorCode;
  message: string;
}

export function toErrorData(error: unknown): ErrorData {
  if (error instanceof DetinferError) return { code: error.code, message: error.message };
  return { code: 'ENGINE_FAILED', message: error instanceof Error ? error.message : String(error) };
}

export function fromErrorData(data: ErrorData): DetinferError {
  return new DetinferError(data.code, data.message);
}
