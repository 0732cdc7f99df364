/** What can go wrong between this machine and a hub, in words that say what to do. */
import { DetinferError } from '../protocol/errors.js';
import { TemporaryError } from './retry.js';
import type { HubSettings } from './settings.js';

/** Makes the errors about one revision of one repository. */
export class HubProblem {
  constructor(
    private readonly settings: HubSettings,
    private readonly repo: string,
    private readonly revision: string,
  ) {}

  /**
   * @param code the X-Error-Code header: the hub answers 401 for a repository that does not exist, lest it tell who owns
   *   a private one
   */
  ofStatus(status: number, code: string | null, path?: string): DetinferError {
    const { endpoint, token } = this.settings;
    if (code === 'GatedRepo') {
      const then =
        token === null ? 'set HF_TOKEN to a token of an account that has it' : "the token's account lacks it";
      return new DetinferError(
        'ACCESS_DENIED',
        `${this.repo} is gated: ask for access at ${endpoint}/${this.repo}; ${then}.`,
      );
    }
    if (code === 'RevisionNotFound') {
      return new DetinferError('INVALID_MODEL', `${this.repo} has no revision ${this.revision} at ${endpoint}.`);
    }
    if (code === 'EntryNotFound') {
      return new DetinferError('INVALID_MODEL', `${this.repo} has no file ${path ?? ''} at revision ${this.revision}.`);
    }
    if (code === 'RepoNotFound' || status === 404) {
      const login =
        token === null ? 'If it is private, set HF_TOKEN.' : 'If it is private, your token lacks access to it.';
      return new DetinferError(
        'INVALID_MODEL',
        `there is no model ${this.repo} at ${endpoint}. Check the name. ${login}`,
      );
    }
    if (status === 401 || status === 403) {
      const what = token === null ? 'Set HF_TOKEN.' : 'HF_TOKEN is not valid there, or has no right to read it.';
      return new DetinferError(
        'ACCESS_DENIED',
        `${endpoint} refuses access to ${this.repo} (status ${status}). ${what}`,
      );
    }
    return this.unusable(`answered with status ${status}${path === undefined ? '' : ` for ${path}`}`);
  }

  /** An answer that no hub gives. `what` completes the sentence "the hub …". */
  unusable(what: string): DetinferError {
    const { endpoint } = this.settings;
    return new DetinferError('DOWNLOAD_FAILED', `${this.repo}: the hub at ${endpoint} ${what}. Is HF_ENDPOINT right?`);
  }
}

/** A connection that could not be made or broke: worth another attempt. */
export function networkProblem(host: string, error: unknown): TemporaryError {
  return new TemporaryError(`${host}: ${reason(error)}`, { cause: error });
}

/** The words of a failure: fetch wraps the cause, and several addresses of one name give an AggregateError. */
function reason(error: unknown): string {
  if (error instanceof AggregateError && error.errors.length > 0) return reason(error.errors[0]);
  if (error instanceof Error && error.cause !== undefined) return reason(error.cause);
  return error instanceof Error ? error.message : String(error);
}

/** Turns a failure of the disk into an error that says what to do; returns anything else as it is. */
export function diskProblem(error: unknown, folder: string): unknown {
  const code = (error as NodeJS.ErrnoException | null)?.code;
  if (code === 'ENOSPC' || code === 'EDQUOT') {
    return new DetinferError(
      'DOWNLOAD_FAILED',
      `the disk of ${folder} is full. Free some space, or set HF_HUB_CACHE to a folder on another disk; ` +
        'what is downloaded stays, and the next start goes on from there.',
      { cause: error },
    );
  }
  if (code === 'EACCES' || code === 'EPERM' || code === 'EROFS' || code === 'ENOTDIR') {
    const message = `${folder} can't be written (${code}). Set HF_HUB_CACHE to a folder that can.`;
    return new DetinferError('DOWNLOAD_FAILED', message, { cause: error });
  }
  return error;
}
