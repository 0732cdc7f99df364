import { randomUUID } from 'node:crypto';
import { mkdirSync, readFileSync, renameSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { isCommit } from './names.js';

/**
 * The part of the cache that belongs to one model, laid out as Python's huggingface_hub does it:
 *
 *     models--ORG--MODEL/refs/REVISION            the commit that a branch or tag named
 *     models--ORG--MODEL/snapshots/COMMIT/PATH    a relative link to a blob
 *     models--ORG--MODEL/blobs/ETAG               the bytes, under the hub's name for them
 *     .locks/models--ORG--MODEL/ETAG.lock
 */
export class RepoCache {
  readonly #folder: string;
  readonly #lockFolder: string;

  constructor(cacheFolder: string, repo: string) {
    const name = `models--${repo.replace('/', '--')}`;
    this.#folder = join(cacheFolder, name);
    this.#lockFolder = join(cacheFolder, '.locks', name);
  }

  snapshotPath(commit: string): string {
    return join(this.#folder, 'snapshots', commit);
  }

  blobPath(etag: string): string {
    return join(this.#folder, 'blobs', etag);
  }

  lockPath(etag: string): string {
    return join(this.#lockFolder, `${etag}.lock`);
  }

  /** The commit that a revision named when it was last downloaded. */
  readRef(revision: string): string | null {
    if (isCommit(revision)) return revision;
    try {
      return readFileSync(this.#refPath(revision), 'utf8').trim();
    } catch {
      return null;
    }
  }

  /** Notes that a branch or tag names a commit whose snapshot is complete. A cache that says so may be read-only. */
  writeRef(revision: string, commit: string): void {
    if (this.readRef(revision) === commit) return;
    const path = this.#refPath(revision);
    mkdirSync(dirname(path), { recursive: true });
    const written = `${path}.${randomUUID()}.new`;
    writeFileSync(written, commit);
    renameSync(written, path);
  }

  /** Whether a snapshot has a file, of the given size where one is given. */
  hasFile(commit: string, path: string, size?: number): boolean {
    return isFile(join(this.snapshotPath(commit), path), size);
  }

  hasBlob(etag: string, size: number): boolean {
    return isFile(this.blobPath(etag), size);
  }

  /** Makes a snapshot's file a relative link to a blob. */
  link(commit: string, path: string, etag: string): void {
    const link = join(this.snapshotPath(commit), path);
    mkdirSync(dirname(link), { recursive: true });
    const target = relative(dirname(link), this.blobPath(etag));
    // A rename replaces a dead link, and whatever another process makes at this moment.
    const made = `${link}.${randomUUID()}.new`;
    symlinkSync(target, made);
    renameSync(made, link);
  }

  #refPath(revision: string): string {
    return join(this.#folder, 'refs', revision);
  }
}

function isFile(path: string, size: number | undefined): boolean {
  const stat = statSync(path, { throwIfNoEntry: false });
  return stat !== undefined && stat.isFile() && (size === undefined || stat.size === size);
}
