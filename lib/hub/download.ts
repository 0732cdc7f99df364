import { existsSync, readFileSync, statfsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { DetinferError } from '../protocol/errors.js';
import { downloadBlob, downloadSmallBlob, isSmall } from './blob.js';
import type { RepoCache } from './cache.js';
import type { HubClient, RemoteFile } from './hub-client.js';
import { forAll, Limit } from './limit.js';
import { withLock } from './lock.js';
import { INDEX_FILE, smallFiles, weightFiles, type Needs } from './needed-files.js';
import { PartialFile } from './partial-file.js';
import type { RetryPolicy } from './retry.js';

/** What is told about a download while it runs. */
export interface DownloadProgress {
  /** These files are to be fetched; more may follow. */
  add(files: { path: string; size: number }[]): void;
  /** Bytes that an earlier run had left. */
  resume(path: string, bytes: number): void;
  /** Bytes that arrived; negative when some are dropped. */
  advance(path: string, bytes: number): void;
  /** The file is complete and its checksum is right. */
  finish(path: string): void;
}

export interface DownloadOptions {
  client: HubClient;
  cache: RepoCache;
  cacheFolder: string;
  progress: DownloadProgress;
  retries: RetryPolicy;
  /** One line about something that a user may wonder at. */
  onNote: (message: string) => void;
  signal: AbortSignal;
}

const FILES_AT_ONCE = 4;
const CONNECTIONS = 8;

/**
 * Downloads what is needed of one commit into the cache; what is there already is left alone. Processes that do so at
 * the same time share the work. @throws DetinferError; the file system's errors
 */
export async function downloadSnapshot(
  repo: string,
  commit: string,
  needs: Needs,
  options: DownloadOptions,
): Promise<void> {
  const { client, cache } = options;
  const snapshot = new SnapshotDownload(repo, commit, options);
  const listing = new Map((await client.listFiles(repo, commit)).map((file) => [file.path, file]));
  const paths = [...listing.keys()];
  const filesOf = (names: string[]): RemoteFile[] => names.map((name) => listing.get(name) as RemoteFile);
  const readIndex = async (): Promise<string> => {
    await snapshot.fetch(filesOf([INDEX_FILE]));
    return readFileSync(join(cache.snapshotPath(commit), INDEX_FILE), 'utf8');
  };
  const weights = needs.weights ? await weightFiles(repo, paths, readIndex) : [];
  // What takes longest begins first.
  await snapshot.fetch(filesOf([...weights, ...smallFiles(paths, needs)]));
}

class SnapshotDownload {
  readonly #files = new Limit(FILES_AT_ONCE);
  readonly #connections = new Limit(CONNECTIONS);

  constructor(
    private readonly repo: string,
    private readonly commit: string,
    private readonly options: DownloadOptions,
  ) {}

  async fetch(files: RemoteFile[]): Promise<void> {
    const { cache, progress } = this.options;
    const missing = files.filter(({ path, size }) => !cache.hasFile(this.commit, path, size));
    if (missing.length === 0) return;
    this.#checkSpace(missing);
    progress.add(missing);
    await forAll(missing, this.#files, this.options.signal, (file, signal) => this.#fetchFile(file, signal));
  }

  async #fetchFile(file: RemoteFile, signal: AbortSignal): Promise<void> {
    const { client, cache, progress, retries, onNote } = this.options;
    const { path, checksum } = file;
    const blob = cache.blobPath(checksum.hex);
    if (!cache.hasBlob(checksum.hex, file.size)) {
      const options = {
        client,
        locate: () => client.locate(this.repo, this.commit, file, signal),
        connections: this.#connections,
        retries,
        onRetry: retryNote(onNote),
        onResume: (bytes: number) => progress.resume(path, bytes),
        onBytes: (bytes: number) => progress.advance(path, bytes),
        signal,
      };
      const location = options.locate();
      if (isSmall(file)) {
        await downloadSmallBlob(blob, file, await location, options);
      } else {
        const onWait = (): void => onNote(`Waiting for another download of ${path}.`);
        // Asked for while the lock is taken, which takes as long; a failure is for the one that awaits it.
        location.catch(() => {});
        await withLock(cache.lockPath(checksum.hex), signal, onWait, async () => {
          if (!cache.hasBlob(checksum.hex, file.size)) await downloadBlob(blob, file, await location, options);
        });
      }
    }
    cache.link(this.commit, path, checksum.hex);
    progress.finish(path);
  }

  /** A disk that is too small is found before anything is written. */
  #checkSpace(files: RemoteFile[]): void {
    const { cache, cacheFolder } = this.options;
    const missing = files.filter(({ checksum, size }) => !cache.hasBlob(checksum.hex, size));
    const needed = missing.reduce((sum, { checksum, size }) => {
      return sum + Math.max(size - PartialFile.bytesOnDisk(cache.blobPath(checksum.hex)), 0);
    }, 0);
    const { bavail, bsize } = statfsSync(nearestFolder(cacheFolder));
    if (needed <= bavail * bsize) return;
    const [need, free] = [needed, bavail * bsize].map((bytes) => `${(bytes / 1e9).toFixed(2)} GB`);
    throw new DetinferError(
      'DOWNLOAD_FAILED',
      `${this.repo} needs ${need} more, and the disk of ${cacheFolder} has ${free} free. ` +
        'Free some space, or set HF_HUB_CACHE to a folder on another disk.',
    );
  }
}

/** A note about each attempt that failed. */
export function retryNote(onNote: (message: string) => void): (problem: string, waitMs: number) => void {
  return (problem, waitMs) => onNote(`${problem}; trying again in ${(waitMs / 1000).toFixed(1)} s.`);
}

/** The folder itself or the nearest one above it that exists. */
function nearestFolder(folder: string): string {
  return existsSync(folder) ? folder : nearestFolder(dirname(folder));
}
