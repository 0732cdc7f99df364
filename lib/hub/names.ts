import { DetinferError } from '../protocol/errors.js';

const PART = /^(?![-.])[\w.-]+(?<![-.])$/;

/** Whether a text has the form of a model's name on the hub: organization/model. */
export function isRepoName(text: string): boolean {
  const parts = text.split('/');
  return parts.length === 2 && text.length <= 96 && !/--|\.\./.test(text) && parts.every((part) => PART.test(part));
}

/** A commit is named by its full hash; anything else is a branch or a tag, which may move. */
export function isCommit(revision: string): boolean {
  return /^[0-9a-f]{40}$/.test(revision);
}

/**
 * Refuses a revision that could not name a branch, tag or commit: it becomes part of a path.
 * @throws DetinferError INVALID_FLAG
 */
export function checkRevision(revision: string): void {
  const parts = revision.split('/');
  if (parts.every((part) => /^[\w.+@-]+$/.test(part) && !/^\.+$/.test(part))) return;
  throw new DetinferError('INVALID_FLAG', `--revision needs a branch, a tag or a commit, not '${revision}'.`);
}
