import { readFileSync } from 'node:fs';

import { DetinferError, type ErrorCode } from '../protocol/errors.js';

export type JsonValue = string | number | boolean | null | JsonValue[] | JsonObject;
export interface JsonObject {
  [key: string]: JsonValue;
}

export function isJsonObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/**
 * Parses a JSON object. @param what names its source in the error, for example a path or a flag.
 * @throws DetinferError with `code` when it is no JSON or no object.
 */
export function parseJsonObject(text: string, what: string, code: ErrorCode): JsonObject {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new DetinferError(code, `${what} is not valid JSON: ${(error as Error).message}`, { cause: error });
  }
  if (!isJsonObject(value)) throw new DetinferError(code, `${what} must be a JSON object`);
  return value;
}

/** Reads a file that must hold a JSON object. @throws DetinferError with `code`. */
export function readJsonObject(path: string, code: ErrorCode): JsonObject {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    throw new DetinferError(code, `cannot read ${path}: ${(error as Error).message}`, { cause: error });
  }
  return parseJsonObject(text, path, code);
}
