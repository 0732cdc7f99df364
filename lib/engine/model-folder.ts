import { existsSync, statSync } from 'node:fs';
import { join } from 'node:path';

import { DetinferError } from '../protocol/errors.js';
import { parseJsonObject, readJsonObject, type JsonObject, type JsonValue } from './json.js';

/** What a model folder says about itself, read without loading a weight or the native engine. */
export interface ModelFolder {
  path: string;
  /** config.json with the overrides laid over it. */
  config: JsonObject;
  architectures: string[];
  modelType: string;
  vocabSize: number;
  /** The model's own limit: max_position_embeddings. */
  contextLength: number;
  /** Tokens that end a generation: those of generation_config.json, or else of config.json. */
  eosTokenIds: number[];
  hasTokenizer: boolean;
  /** Where tokenizer.json is, or would be. */
  tokenizerPath: string;
}

/**
 * Reads and checks a model folder's config.json and generation_config.json.
 * @param overridesJson a JSON object whose keys replace those of config.json (--json-model-override-args).
 * @throws DetinferError INVALID_MODEL, or INVALID_FLAG for bad overrides.
 */
export function readModelFolder(path: string, overridesJson = '{}'): ModelFolder {
  if (!isFolder(path)) {
    throw new DetinferError('INVALID_MODEL', `${path} is neither a local model folder nor the name of a model on the hub, such as Qwen/Qwen3-8B`);
  }
  const configPath = join(path, 'config.json');
  if (!existsSync(configPath)) {
    throw new DetinferError('INVALID_MODEL', `${path} has no config.json; is it a Hugging Face model folder?`);
  }
  const overrides = parseJsonObject(overridesJson, '--json-model-override-args', 'INVALID_FLAG');
  const config = { ...readJsonObject(configPath, 'INVALID_MODEL'), ...overrides };
  const vocabSize = positiveInteger(config, 'vocab_size', configPath);
  const tokenizerPath = join(path, 'tokenizer.json');
  return {
    path,
    config,
    architectures: architecturesOf(config, configPath),
    modelType: typeof config.model_type === 'string' ? config.model_type : 'unknown',
    vocabSize,
    contextLength: positiveInteger(config, 'max_position_embeddings', configPath),
    eosTokenIds: readEosTokenIds(path, config, configPath, vocabSize),
    hasTokenizer: existsSync(tokenizerPath),
    tokenizerPath,
  };
}

/** Whether a path names a folder. One that can't be looked at, for it is too long, say, names none. */
export function isFolder(path: string): boolean {
  try {
    return statSync(path).isDirectory();
  } catch {
    return false;
  }
}

function architecturesOf(config: JsonObject, configPath: string): string[] {
  const names = config.architectures;
  if (Array.isArray(names) && names.length > 0 && names.every((name) => typeof name === 'string')) return names;
  throw new DetinferError('INVALID_MODEL', `${configPath}: architectures must be a non-empty list of names`);
}

function positiveInteger(config: JsonObject, key: string, configPath: string): number {
  const value = config[key];
  if (typeof value === 'number' && Number.isInteger(value) && value > 0 && value < 2 ** 31) return value;
  const found = value === undefined ? 'is missing' : `is ${JSON.stringify(value)}`;
  throw new DetinferError('INVALID_MODEL', `${configPath}: ${key} ${found}; it must be a positive integer`);
}

function readEosTokenIds(folder: string, config: JsonObject, configPath: string, vocabSize: number): number[] {
  const generationPath = join(folder, 'generation_config.json');
  if (existsSync(generationPath)) {
    const generation = readJsonObject(generationPath, 'INVALID_MODEL');
    const ids = tokenIds(generation.eos_token_id, generationPath, vocabSize);
    if (ids.length > 0) return ids;
  }
  return tokenIds(config.eos_token_id, configPath, vocabSize);
}

function tokenIds(value: JsonValue | undefined, path: string, vocabSize: number): number[] {
  if (value === undefined || value === null) return [];
  const ids = Array.isArray(value) ? value : [value];
  return ids.map((id) => {
    if (typeof id === 'number' && Number.isInteger(id) && id >= 0 && id < vocabSize) return id;
    const message = `${path}: eos_token_id has ${JSON.stringify(id)}, which is no id below vocab_size ${vocabSize}`;
    throw new DetinferError('INVALID_MODEL', message);
  });
}
