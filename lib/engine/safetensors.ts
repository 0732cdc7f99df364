import { closeSync, existsSync, fstatSync, openSync, readSync } from 'node:fs';
import { join } from 'node:path';

import { DetinferError } from '../protocol/errors.js';
import { isJsonObject, parseJsonObject, readJsonObject, type JsonObject, type JsonValue } from './json.js';

/** Where the tensors of a checkpoint lie. */
export interface WeightTables {
  files: string[];
  tensors: TensorEntry[];
}

export interface TensorEntry {
  name: string;
  /** Index into WeightTables.files. */
  file: number;
  /** As the header writes it, for example BF16. */
  dtype: string;
  shape: number[];
  /** Bytes begin … end - 1 of the file. */
  begin: number;
  end: number;
}

const SINGLE_FILE = 'model.safetensors';
const INDEX_FILE = 'model.safetensors.index.json';
/** The format's own limit. */
const MAX_HEADER_BYTES = 100_000_000;
const LENGTH_BYTES = 8;

const BITS_OF_DTYPE: Readonly<Record<string, number>> = {
  ...{ F64: 64, F32: 32, F16: 16, BF16: 16, I64: 64, I32: 32, I16: 16, I8: 8, U64: 64, U32: 32, U16: 16, U8: 8 },
  ...{ BOOL: 8, C64: 64, F8_E4M3: 8, F8_E5M2: 8, F8_E8M0: 8, F6_E2M3: 6, F6_E3M2: 6, F4: 4 },
};

/**
 * Reads and checks the headers of a model folder's weights: one model.safetensors, or the shards of an index. No weight
 * is read. @throws DetinferError INVALID_WEIGHTS naming file and tensor
 */
export function readWeightTables(folder: string): WeightTables {
  const single = join(folder, SINGLE_FILE);
  const index = join(folder, INDEX_FILE);
  if (existsSync(single)) return { files: [single], tensors: readHeader(single, 0) };
  if (existsSync(index)) return readShards(folder, index);
  throw invalid(
    `${folder} has neither ${SINGLE_FILE} nor ${INDEX_FILE}; ` +
      'convert the weights to safetensors, or pass --load-format dummy to run without weights',
  );
}

function readShards(folder: string, index: string): WeightTables {
  const weightMap = readJsonObject(index, 'INVALID_WEIGHTS').weight_map;
  if (!isJsonObject(weightMap)) throw invalid(`${index} has no weight_map`);
  const names = [...new Set(Object.values(weightMap))].map((name) => shardName(name, index)).sort();
  const files = names.map((name) => join(folder, name));
  const missing = files.find((file) => !existsSync(file));
  if (missing !== undefined) throw invalid(`${missing} is missing, although ${index} names it; download it again`);
  const tensors = files.flatMap((file, i) => readHeader(file, i));
  const fileOf = new Map(tensors.map((tensor) => [tensor.name, tensor.file]));
  for (const [tensor, name] of Object.entries(weightMap)) {
    const file = names.indexOf(name as string);
    if (fileOf.get(tensor) !== file) throw invalid(`${files[file]} has no tensor ${tensor}, although ${index} says so`);
  }
  if (fileOf.size !== tensors.length) throw invalid(`${index}: two shards hold a tensor of the same name`);
  return { files, tensors };
}

function shardName(name: JsonValue, index: string): string {
  if (typeof name === 'string' && /^[^/\\]+\.safetensors$/.test(name)) return name;
  throw invalid(`${index}: ${JSON.stringify(name)} is no name of a safetensors file`);
}

function readHeader(path: string, file: number): TensorEntry[] {
  const { size, headerBytes, header } = readHeaderJson(path);
  const dataStart = LENGTH_BYTES + headerBytes;
  const tensors: TensorEntry[] = [];
  for (const [name, value] of Object.entries(header)) {
    if (name === '__metadata__') continue;
    const tensor = parseEntry(name, value, path);
    tensors.push({ ...tensor, file, begin: dataStart + tensor.begin, end: dataStart + tensor.end });
  }
  tensors.sort((a, b) => a.begin - b.begin || a.end - b.end);
  let previous: TensorEntry | undefined;
  for (const tensor of tensors) {
    if (tensor.end > size) {
      const message = `tensor ${tensor.name} ends at byte ${tensor.end}, but the file has ${size} bytes`;
      throw invalid(`${path} is truncated: ${message}; download it again`);
    }
    if (previous !== undefined && tensor.begin < previous.end) {
      throw invalid(`${path}: tensors ${previous.name} and ${tensor.name} overlap`);
    }
    previous = tensor;
  }
  return tensors;
}

function readHeaderJson(path: string): { size: number; headerBytes: number; header: JsonObject } {
  const descriptor = open(path);
  try {
    const { size } = fstatSync(descriptor);
    const length = Buffer.alloc(LENGTH_BYTES);
    if (readSync(descriptor, length, 0, LENGTH_BYTES, 0) < LENGTH_BYTES) {
      throw invalid(`${path} is truncated: ${size} bytes are too few for a header; download it again`);
    }
    const headerBytes = length.readBigUInt64LE();
    if (headerBytes > BigInt(MAX_HEADER_BYTES)) {
      throw invalid(`${path} is no safetensors file: its header would be ${headerBytes} bytes long`);
    }
    const text = Buffer.alloc(Number(headerBytes));
    if (readSync(descriptor, text, 0, text.length, LENGTH_BYTES) < text.length) {
      throw invalid(`${path} is truncated: it ends within its header; download it again`);
    }
    const header = parseJsonObject(text.toString('utf8'), `${path}: the header`, 'INVALID_WEIGHTS');
    return { size, headerBytes: text.length, header };
  } finally {
    closeSync(descriptor);
  }
}

function open(path: string): number {
  try {
    return openSync(path, 'r');
  } catch (error) {
    throw new DetinferError('INVALID_WEIGHTS', `cannot read ${path}: ${(error as Error).message}`, { cause: error });
  }
}

/** Checks an entry; begin and end count from the start of the data, as in the header. */
function parseEntry(name: string, value: JsonValue, path: string): Omit<TensorEntry, 'file'> {
  const where = `${path}: tensor ${name}`;
  const { dtype, shape, data_offsets: offsets } = isJsonObject(value) ? value : {};
  if (typeof dtype !== 'string' || !isCounts(shape) || !isCounts(offsets) || offsets.length !== 2) {
    throw invalid(`${where} has a malformed entry in the header`);
  }
  const bits = BITS_OF_DTYPE[dtype];
  if (bits === undefined) throw invalid(`${where} has the unknown type ${dtype}`);
  const [begin, end] = offsets as [number, number];
  const bytes = (shape.reduce((product, size) => product * size, 1) * bits) / 8;
  if (end - begin !== bytes) {
    throw invalid(`${where} has ${end - begin} bytes, but ${dtype} [${shape.join(', ')}] takes ${bytes}`);
  }
  return { name, dtype, shape, begin, end };
}

function isCounts(value: JsonValue | undefined): value is number[] {
  return Array.isArray(value) && value.every((count) => Number.isSafeInteger(count) && (count as number) >= 0);
}

function invalid(message: string): DetinferError {
  return new DetinferError('INVALID_WEIGHTS', message);
}
