/** Makes small model folders, sound or broken on purpose. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll } from '@jest/globals';

import { FIXTURES } from '../../accuracy/engine-runs.js';

export interface Tensor {
  dtype: string;
  shape: number[];
  data: Buffer;
}

export type Tensors = Record<string, Tensor>;
export type Config = Record<string, unknown>;

const SOURCE = join(FIXTURES, 'qwen3-tiny');

export function tinyConfig(source = SOURCE): Config {
  return JSON.parse(readFileSync(join(source, 'config.json'), 'utf8')) as Config;
}

/** The tensors of a real checkpoint, to be changed. */
export function tinyTensors(source = SOURCE): Tensors {
  const file = readFileSync(join(source, 'model.safetensors'));
  const headerBytes = Number(file.readBigUInt64LE());
  const header = JSON.parse(file.toString('utf8', 8, 8 + headerBytes)) as Record<
    string,
    { dtype: string; shape: number[]; data_offsets: [number, number] }
  >;
  const tensors: Tensors = {};
  for (const [name, { dtype, shape, data_offsets: offsets }] of Object.entries(header)) {
    if (name === '__metadata__') continue;
    const [begin, end] = offsets.map((offset) => 8 + headerBytes + offset);
    tensors[name] = { dtype, shape, data: file.subarray(begin, end) };
  }
  return tensors;
}

/** A safetensors file. @param edit changes the header before it is written */
export function safetensors(tensors: Tensors, edit: (header: Record<string, unknown>) => void = () => {}): Buffer {
  const header: Record<string, unknown> = {};
  let end = 0;
  for (const [name, { dtype, shape, data }] of Object.entries(tensors)) {
    header[name] = { dtype, shape, data_offsets: [end, end + data.length] };
    end += data.length;
  }
  edit(header);
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  return Buffer.concat([length, text, ...Object.values(tensors).map(({ data }) => data)]);
}

const parent = mkdtempSync(join(tmpdir(), 'detinfer-checkpoint-'));
let count = 0;
afterAll(() => rmSync(parent, { recursive: true }));

/** Writes files into a new folder. @param files contents by name; objects are written as JSON */
export function makeFolder(files: Record<string, Buffer | object | string>): string {
  const folder = join(parent, String(count++));
  mkdirSync(folder);
  for (const [name, content] of Object.entries(files)) {
    const raw = typeof content === 'string' || Buffer.isBuffer(content);
    writeFileSync(join(folder, name), raw ? content : JSON.stringify(content));
  }
  return folder;
}
