import { DetinferError } from '../protocol/errors.js';

/** What a caller wants to do with a repository. */
export interface Needs {
  weights: boolean;
  tokenizer: boolean;
  /** The model's own description: config.json. */
  config: boolean;
}

export const SINGLE_FILE = 'model.safetensors';
export const INDEX_FILE = 'model.safetensors.index.json';

const CONFIG_FILES = ['config.json', 'generation_config.json'];
const TOKENIZER_FILES = [
  'tokenizer.json',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'added_tokens.json',
  'chat_template.jinja',
  'chat_template.json',
];

/** The description and tokenizer files that a repository with these paths has. */
export function smallFiles(paths: string[], needs: Needs): string[] {
  const wanted = [...(needs.config ? CONFIG_FILES : []), ...(needs.tokenizer ? TOKENIZER_FILES : [])];
  return wanted.filter((name) => paths.includes(name));
}

/** Files without which there is no use in the rest. */
export function requiredFiles(needs: Needs): string[] {
  return [...(needs.config ? ['config.json'] : []), ...(needs.tokenizer ? ['tokenizer.json'] : [])];
}

/**
 * The weights that are loaded: one file, or else the shards that the index names. Other safetensors files of a
 * repository are the same weights in another form.
 * @param readIndex reads the index file
 * @throws DetinferError INVALID_MODEL where there are no safetensors weights, or the index is broken
 */
export async function weightFiles(repo: string, paths: string[], readIndex: () => Promise<string>): Promise<string[]> {
  if (paths.includes(SINGLE_FILE)) return [SINGLE_FILE];
  if (!paths.includes(INDEX_FILE)) {
    throw new DetinferError(
      'INVALID_MODEL',
      `${repo} has neither ${SINGLE_FILE} nor ${INDEX_FILE}; detinfer reads safetensors weights alone.`,
    );
  }
  const shards = shardNames(await readIndex());
  const missing = shards?.find((name) => !paths.includes(name));
  if (shards === null || missing !== undefined) {
    const problem = missing === undefined ? 'names no shards' : `names ${missing}, which is missing`;
    throw new DetinferError('INVALID_MODEL', `${repo}: ${INDEX_FILE} ${problem}.`);
  }
  return shards;
}

/** The files that an index names, each once; null for one that can't be used. */
export function shardNames(index: string): string[] | null {
  try {
    const { weight_map: weightMap } = JSON.parse(index) as { weight_map?: Record<string, unknown> };
    const names = [...new Set(Object.values(weightMap ?? {}))].sort();
    const isUsable =
      names.length > 0 && names.every((name) => typeof name === 'string' && /^[^/\\]+\.safetensors$/.test(name));
    return isUsable ? (names as string[]) : null;
  } catch {
    return null;
  }
}
