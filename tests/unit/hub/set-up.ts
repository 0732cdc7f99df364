import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeEach } from '@jest/globals';
import type { DownloadProgress } from '../../../lib/hub/download.js';
import { resolveModel, type ModelRequest } from '../../../lib/hub/resolve.js';
import type { HubSettings } from '../../../lib/hub/settings.js';
import { LocalHub } from '../../local-hub.js';

export const ALL = { config: true, weights: true, tokenizer: true };

/** Bytes that look random and are the same each time. */
export function bytes(length: number, seed = 'a'): Buffer {
  const block = 64 * 1024;
  const blocks = Array.from({ length: Math.ceil(length / block) }, (_, i) => {
    return createHash('shake256', { outputLength: block }).update(`${seed}${i}`).digest();
  });
  return Buffer.concat(blocks).subarray(0, length);
}

/** What a download says about itself. */
export class Record implements DownloadProgress {
  readonly files = new Map<string, { size: number; resumed: number; received: number; isFinished: boolean }>();
  readonly notes: string[] = [];

  add(files: { path: string; size: number }[]): void {
    for (const { path, size } of files) this.files.set(path, { size, resumed: 0, received: 0, isFinished: false });
  }

  resume(path: string, count: number): void {
    this.files.get(path)!.resumed += count;
  }

  advance(path: string, count: number): void {
    this.files.get(path)!.received += count;
  }

  finish(path: string): void {
    this.files.get(path)!.isFinished = true;
  }
}

/** A hub and an empty cache for each test of a file. */
export interface Fixture {
  hub: LocalHub;
  cacheFolder: string;
  settings: HubSettings;
  record: Record;
  /** A URL at which nobody answers. */
  nowhere: string;
  resolve(request: Partial<ModelRequest>, settings?: Partial<HubSettings>): Promise<string>;
}

export function fixture(): Fixture {
  const made = {} as Fixture;
  const root = mkdtempSync(join(tmpdir(), 'detinfer-hub-'));
  let count = 0;
  beforeEach(async () => {
    made.hub = await LocalHub.start();
    made.cacheFolder = join(root, `cache ${(count += 1)}`);
    made.settings = { endpoint: made.hub.endpoint, cacheFolder: made.cacheFolder, token: null, offline: false };
    made.record = new Record();
    const stopped = await LocalHub.start();
    made.nowhere = stopped.endpoint;
    await stopped.stop();
  });
  afterEach(() => made.hub.stop());
  afterAll(() => rmSync(root, { recursive: true, force: true }));
  made.resolve = (request, settings = {}) => {
    const whole = { repo: 'org/model', revision: 'main', needs: ALL, ...request };
    return resolveModel(whole, {
      userAgent: 'test',
      progress: made.record,
      onNote: (message) => made.record.notes.push(message),
      settings: { ...made.settings, ...settings },
      retries: { attempts: 3, firstWaitMs: 5 },
    });
  };
  return made;
}

/** A model in one file, with what must stay where it is. */
export function smallModel(weights: Uint8Array = bytes(300_000)): { [path: string]: Uint8Array | string } {
  return {
    'README.md': '# A model',
    'config.json': '{"a": 1}',
    'generation_config.json': '{"b": 2}',
    'tokenizer.json': '{"c": 3}',
    'tokenizer_config.json': '{"d": 4}',
    'model.safetensors': weights,
    'pytorch_model.bin': bytes(200_000, 'bin'),
    'training_args.pth': bytes(200_000, 'pth'),
    'original/consolidated.safetensors': bytes(200_000, 'original'),
  };
}
