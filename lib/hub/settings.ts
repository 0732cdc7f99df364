import { existsSync, readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { DetinferError } from '../protocol/errors.js';

/** Where models come from and where they are kept, from the variables that Python's huggingface_hub reads, too. */
export interface HubSettings {
  /** Base URL without a slash at its end (HF_ENDPOINT). */
  endpoint: string;
  /** Folder of the cache (HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME). */
  cacheFolder: string;
  /** null: no token is known (HF_TOKEN, or the file that a login leaves in HF_HOME). */
  token: string | null;
  /** Serve from the cache alone (HF_HUB_OFFLINE). */
  offline: boolean;
}

/** Throws DetinferError INVALID_FLAG for an HF_ENDPOINT that is no URL. */
export function readHubSettings(env: NodeJS.ProcessEnv = process.env): HubSettings {
  const home = folder(env.HF_HOME) ?? join(folder(env.XDG_CACHE_HOME) ?? join(homedir(), '.cache'), 'huggingface');
  return {
    endpoint: endpoint(env.HF_ENDPOINT),
    cacheFolder: folder(env.HF_HUB_CACHE) ?? folder(env.HUGGINGFACE_HUB_CACHE) ?? join(home, 'hub'),
    token: token(env, home),
    offline: isOn(env.HF_HUB_OFFLINE),
  };
}

function endpoint(value: string | undefined): string {
  const url = value?.trim() || 'https://huggingface.co';
  if (/^https?:\/\//.test(url) && URL.canParse(url)) return url.replace(/\/+$/, '');
  throw new DetinferError('INVALID_FLAG', `HF_ENDPOINT must be a URL such as https://huggingface.co, not '${url}'`);
}

function token(env: NodeJS.ProcessEnv, home: string): string | null {
  const given = env.HF_TOKEN?.trim() || env.HUGGING_FACE_HUB_TOKEN?.trim();
  if (given) return given;
  const file = folder(env.HF_TOKEN_PATH) ?? join(home, 'token');
  return existsSync(file) ? readFileSync(file, 'utf8').trim() || null : null;
}

/** A folder that a variable names; an empty variable counts as none. */
function folder(value: string | undefined): string | undefined {
  if (value === undefined || value === '') return undefined;
  return value.replace(/^~(?=\/|$)/, homedir());
}

function isOn(value: string | undefined): boolean {
  return ['1', 'on', 'yes', 'true'].includes((value ?? '').toLowerCase());
}
