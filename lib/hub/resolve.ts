import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { DetinferError } from '../protocol/errors.js';
import { RepoCache } from './cache.js';
import { downloadSnapshot, retryNote, type DownloadProgress } from './download.js';
import { HubClient } from './hub-client.js';
import { checkRevision, isCommit } from './names.js';
import { INDEX_FILE, requiredFiles, shardNames, SINGLE_FILE, type Needs } from './needed-files.js';
import { diskProblem } from './problems.js';
import { RETRIES, type RetryPolicy } from './retry.js';
import { readHubSettings, type HubSettings } from './settings.js';

export interface ModelRequest {
  /** organization/model */
  repo: string;
  /** Branch, tag or commit. */
  revision: string;
  needs: Needs;
}

export interface ResolveOptions {
  /** Sent as User-Agent. */
  userAgent: string;
  progress: DownloadProgress;
  /** One line about something that a user may wonder at. */
  onNote: (message: string) => void;
  signal?: AbortSignal;
  settings?: HubSettings;
  retries?: RetryPolicy;
}

/** With a snapshot to fall back on, a hub that does not answer is given up sooner. */
const ATTEMPTS_WITH_SNAPSHOT = 2;

/**
 * The local folder with a model of the hub. Downloads what the cache lacks; offline, or when the hub can't be reached,
 * a complete snapshot in the cache will do.
 * @throws DetinferError INVALID_FLAG, INVALID_MODEL, ACCESS_DENIED, UNREACHABLE or DOWNLOAD_FAILED
 */
export async function resolveModel({ repo, revision, needs }: ModelRequest, options: ResolveOptions): Promise<string> {
  checkRevision(revision);
  const { onNote, progress, signal = new AbortController().signal } = options;
  const settings = options.settings ?? readHubSettings();
  const { cacheFolder, endpoint } = settings;
  const cache = new RepoCache(cacheFolder, repo);

  const known = cache.readRef(revision);
  const missing = known === null ? [`revision ${revision}`] : missingFiles(cache.snapshotPath(known), needs);
  const cached = known !== null && missing.length === 0 ? cache.snapshotPath(known) : null;
  // What a commit names never changes.
  if (cached !== null && (settings.offline || isCommit(revision))) return cached;
  if (settings.offline) {
    throw new DetinferError(
      'DOWNLOAD_FAILED',
      `HF_HUB_OFFLINE is set, and ${cacheFolder} lacks ${missing.join(', ')} of ${repo}. Unset it to download the model.`,
    );
  }

  const { userAgent, retries = RETRIES } = options;
  const client = new HubClient({ settings, userAgent, retries, onRetry: retryNote(onNote), signal });
  try {
    const commit = await client.resolveRevision(
      repo,
      revision,
      cached === null ? retries.attempts : ATTEMPTS_WITH_SNAPSHOT,
    );
    await downloadSnapshot(repo, commit, needs, { client, cache, cacheFolder, progress, retries, onNote, signal });
    cache.writeRef(revision, commit);
    return cache.snapshotPath(commit);
  } catch (error) {
    if (cached === null || !(error instanceof DetinferError) || error.code !== 'UNREACHABLE') {
      throw diskProblem(error, cacheFolder);
    }
    onNote(`The model hub at ${endpoint} can't be reached; serving commit ${known} from the cache.`);
    return cached;
  } finally {
    await client.close();
  }
}

/** The files that a snapshot lacks for `needs`. Links to blobs that are gone count as missing. */
function missingFiles(snapshot: string, needs: Needs): string[] {
  const isThere = (name: string): boolean => existsSync(join(snapshot, name));
  const weights = needs.weights && !isThere(SINGLE_FILE) ? shardsOf(snapshot) : [];
  return [...requiredFiles(needs), ...weights].filter((name) => !isThere(name));
}

function shardsOf(snapshot: string): string[] {
  const index = join(snapshot, INDEX_FILE);
  return (existsSync(index) ? shardNames(readFileSync(index, 'utf8')) : null) ?? [SINGLE_FILE];
}
