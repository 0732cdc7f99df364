import { once } from 'node:events';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';

import { readModelFolder } from '../engine/model-folder.js';
import { readWeightTables } from '../engine/safetensors.js';
import type { LoadFormat } from '../protocol/server-args.js';
import { canonicalJson } from './canonical-json.js';
import { digestOf } from './digest.js';
import type { ModelDigests } from './receipt.js';

/** A model as flags name it, in local folders. */
export interface ModelSource {
  modelPath: string;
  tokenizerPath: string;
  loadFormat: LoadFormat;
  jsonModelOverrideArgs: string;
  skipTokenizerInit: boolean;
}

/**
 * Digests of a model. Its files are read in a thread of their own, so that nothing waits for gigabytes.
 * @throws DetinferError INVALID_MODEL, INVALID_WEIGHTS, or what reading a file threw
 */
export async function modelDigests(source: ModelSource): Promise<ModelDigests> {
  const folder = readModelFolder(source.modelPath, source.jsonModelOverrideArgs);
  const config = digestOf(canonicalJson(folder.config));
  const files = source.loadFormat === 'dummy' ? null : readWeightTables(folder.path).files;
  return {
    weights: files === null ? `dummy:${config}` : await fileDigest(files),
    config,
    tokenizer: source.skipTokenizerInit ? null : await fileDigest([join(source.tokenizerPath, 'tokenizer.json')]),
  };
}

/** Digest of the content of files, one behind the other. */
async function fileDigest(files: string[]): Promise<string> {
  const thread = new Worker(new URL('./file-digest-thread.js', import.meta.url), { workerData: files });
  const [digest] = (await once(thread, 'message')) as [string];
  return digest;
}
