import { existsSync } from 'node:fs';
import { isRepoName } from '../hub/names.js';
import { DetinferError } from '../protocol/errors.js';
import type { LogFormat, ServerArgs } from '../protocol/server-args.js';
import type { Log } from '../server/context.js';
import type { ModelFolders } from '../server/server.js';
import { createDownloadDisplay } from './download-progress.js';
import { ensureAddons } from './native-build.js';
import { PACKAGE_VERSION } from './package.js';

/** The branch that a model comes from when no --revision is given. */
export const DEFAULT_REVISION = 'main';

type SourceArgs = Pick<
  ServerArgs,
  'modelPath' | 'tokenizerPath' | 'revision' | 'loadFormat' | 'skipTokenizerInit' | 'isDemoModel' | 'logFormat'
>;

/** Whether a path is no folder, but has the form of a model's name on the hub. */
function isHubName(path: string): boolean {
  return !existsSync(path) && isRepoName(path);
}

/**
 * The local folders of --model-path and --tokenizer-path. A name of the hub is downloaded into the cache, as far as the
 * cache lacks what these flags need. @throws DetinferError
 */
export async function findModelFolders(args: SourceArgs, log: Log): Promise<ModelFolders> {
  const { modelPath, tokenizerPath, skipTokenizerInit } = args;
  const isOwnTokenizer = tokenizerPath === modelPath;
  if (args.revision !== null && !isHubName(modelPath)) {
    const what = args.isDemoModel ? 'the demo model is served' : `${modelPath} is a local folder`;
    throw new DetinferError('INVALID_FLAG', `--revision is for a model of the hub, and ${what}.`);
  }
  const needs = { config: true, weights: args.loadFormat === 'auto', tokenizer: isOwnTokenizer && !skipTokenizerInit };
  const model = isHubName(modelPath) ? await fromHub(modelPath, args.revision, needs, log, args.logFormat) : modelPath;
  if (isOwnTokenizer) return { model, tokenizer: model };
  if (skipTokenizerInit || !isHubName(tokenizerPath)) return { model, tokenizer: tokenizerPath };
  const tokenizerNeeds = { config: false, weights: false, tokenizer: true };
  return { model, tokenizer: await fromHub(tokenizerPath, null, tokenizerNeeds, log, args.logFormat) };
}

/** Downloads what is needed of a repository and returns the folder of its snapshot. */
export async function fromHub(
  repo: string,
  revision: string | null,
  needs: { config: boolean; weights: boolean; tokenizer: boolean },
  log: Log,
  format: LogFormat = 'text',
): Promise<string> {
  // Files are locked by an addon.
  ensureAddons(log);
  // A model in a local folder needs none of this.
  const { resolveModel } = await import('../hub/resolve.js');
  const progress = createDownloadDisplay(process.stderr, log, format);
  const onNote = (message: string): void => log('warning', message);
  try {
    const userAgent = `detinfer/${PACKAGE_VERSION}`;
    return await resolveModel({ repo, revision: revision ?? DEFAULT_REVISION, needs }, { userAgent, progress, onNote });
  } finally {
    progress.stop();
  }
}
