import { DetinferError } from '../protocol/errors.js';

/** A grammar that can't be read, or that matches nothing. */
export function badGrammar(message: string): DetinferError {
  return new DetinferError('INVALID_REQUEST', message);
}

/** A grammar that is understood and can't be enforced exactly. */
export function unsupported(message: string): DetinferError {
  return new DetinferError('UNSUPPORTED', message);
}
