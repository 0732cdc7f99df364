import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { ALL, bytes, fixture, smallModel } from './set-up.js';

const f = fixture();
const WANTED = [
  'config.json',
  'generation_config.json',
  'model.safetensors',
  'tokenizer.json',
  'tokenizer_config.json',
];

function sharded(): { [path: string]: Uint8Array | string } {
  const { 'model.safetensors': _, ...rest } = smallModel();
  const weight_map = {
    a: 'model-00001-of-00002.safetensors',
    b: 'model-00002-of-00002.safetensors',
    c: 'model-00001-of-00002.safetensors',
  };
  return {
    ...rest,
    'model.safetensors.index.json': JSON.stringify({ weight_map }),
    'model-00001-of-00002.safetensors': bytes(150_000, '1'),
    'model-00002-of-00002.safetensors': bytes(150_000, '2'),
    'consolidated.safetensors': bytes(150_000, '3'),
  };
}

describe('a model of the hub', () => {
  test('is laid out as Python tools lay it out', async () => {
    const files = smallModel();
    const commit = f.hub.publish('org/model', { files });
    const folder = await f.resolve({});
    const repo = join(f.cacheFolder, 'models--org--model');
    expect(folder).toBe(join(repo, 'snapshots', commit));
    expect(readdirSync(folder).sort()).toEqual(WANTED);
    expect(readFileSync(join(repo, 'refs', 'main'), 'utf8')).toBe(commit);
    for (const name of WANTED) {
      expect(lstatSync(join(folder, name)).isSymbolicLink()).toBe(true);
      expect(readlinkSync(join(folder, name))).toBe(`../../blobs/${f.hub.etag('org/model', name)}`);
      expect(readFileSync(join(folder, name)).equals(Buffer.from(files[name]!))).toBe(true);
    }
    // Nothing else is left behind.
    expect(readdirSync(join(repo, 'blobs')).sort()).toEqual(WANTED.map((name) => f.hub.etag('org/model', name)).sort());
    expect([...f.record.files.values()].every((file) => file.isFinished && file.received === file.size)).toBe(true);
  });

  test('of several shards is the shards that its index names', async () => {
    f.hub.publish('org/model', { files: sharded() });
    const folder = await f.resolve({});
    expect(readdirSync(folder).filter((name) => name.includes('model'))).toEqual([
      ...['model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors', 'model.safetensors.index.json'],
    ]);
  });

  test('is asked for once: the second time, no file is asked for', async () => {
    f.hub.publish('org/model', { files: smallModel() });
    const folder = await f.resolve({});
    f.hub.requests.length = 0;
    const ref = join(f.cacheFolder, 'models--org--model', 'refs', 'main');
    const { ino } = statSync(ref);
    expect(await f.resolve({})).toBe(folder);
    expect(f.hub.requests.every(({ at }) => at === 'api')).toBe(true);
    // Nothing is written either, so that the cache may be read-only.
    expect(statSync(ref).ino).toBe(ino);
  });

  test('of a new commit shares the files that did not change', async () => {
    f.hub.publish('org/model', { files: smallModel() });
    const old = await f.resolve({});
    const commit = f.hub.publish('org/model', { files: { ...smallModel(), 'config.json': '{"a": 2}' } });
    f.hub.requests.length = 0;
    const folder = await f.resolve({});
    expect(folder).toContain(commit);
    expect(f.hub.downloads).toEqual(['config.json bytes=0-7']);
    expect(readFileSync(join(old, 'config.json'), 'utf8')).toBe('{"a": 1}');
    expect(readFileSync(join(folder, 'config.json'), 'utf8')).toBe('{"a": 2}');
  });

  test('can be named by a tag with a slash, and by its commit, which needs no network the second time', async () => {
    const commit = f.hub.publish('org/model', { files: smallModel(), refs: ['refs/pr/1'] });
    const folder = await f.resolve({ revision: 'refs/pr/1' });
    expect(readFileSync(join(dirname(dirname(folder)), 'refs', 'refs', 'pr', '1'), 'utf8')).toBe(commit);
    f.hub.requests.length = 0;
    expect(await f.resolve({ revision: commit })).toBe(folder);
    expect(f.hub.requests).toEqual([]);
    expect(existsSync(join(dirname(dirname(folder)), 'refs', commit))).toBe(false);
  });

  test('that was renamed is found under its old name', async () => {
    f.hub.publish('org/old', { files: smallModel() });
    f.hub.rename('org/old', 'org/new');
    const folder = await f.resolve({ repo: 'org/old' });
    expect(readdirSync(folder).sort()).toEqual(WANTED);
  });

  test('brings only what is needed', async () => {
    f.hub.publish('org/model', { files: sharded() });
    const tokenizer = await f.resolve({ needs: { config: false, weights: false, tokenizer: true } });
    expect(readdirSync(tokenizer)).toEqual(['tokenizer.json', 'tokenizer_config.json']);
    const config = await f.resolve({ needs: { ...ALL, weights: false } });
    expect(readdirSync(config)).toEqual([
      'config.json',
      'generation_config.json',
      'tokenizer.json',
      'tokenizer_config.json',
    ]);
  });

  test('is downloaded with a token that the other origin never sees', async () => {
    f.hub.publish('org/model', { files: smallModel(), access: 'private' });
    await f.resolve({}, { token: f.hub.token });
    const authorizations = (at: string): (string | null)[] => [
      ...new Set(f.hub.requests.filter((request) => request.at === at).map(({ authorization }) => authorization)),
    ];
    for (const at of ['api', 'head', 'hub']) expect([at, authorizations(at)]).toEqual([at, [`Bearer ${f.hub.token}`]]);
    expect(authorizations('cdn')).toEqual([null]);
  });
});

describe('a cache that another tool has filled', () => {
  /** As Python's huggingface_hub leaves it: with files that detinfer does not read, too. */
  function fill(commit: string): void {
    const repo = join(f.cacheFolder, 'models--org--model');
    for (const [path, content] of Object.entries(smallModel())) {
      if (!path.startsWith('original') && !WANTED.includes(path)) continue;
      const etag = f.hub.etag('org/model', path);
      const link = join(repo, 'snapshots', commit, path);
      mkdirSync(join(repo, 'blobs'), { recursive: true });
      mkdirSync(dirname(link), { recursive: true });
      writeFileSync(join(repo, 'blobs', etag), content);
      symlinkSync(path.includes('/') ? `../../../blobs/${etag}` : `../../blobs/${etag}`, link);
    }
    mkdirSync(join(repo, 'refs'));
    writeFileSync(join(repo, 'refs', 'main'), commit);
  }

  test('is used as it is', async () => {
    const commit = f.hub.publish('org/model', { files: smallModel() });
    fill(commit);
    expect(await f.resolve({})).toBe(join(f.cacheFolder, 'models--org--model', 'snapshots', commit));
    expect(f.hub.requests.every(({ at }) => at === 'api')).toBe(true);
    expect(f.record.files.size).toBe(0);
  });

  test('serves offline, without a single request', async () => {
    const commit = f.hub.publish('org/model', { files: smallModel() });
    fill(commit);
    expect(await f.resolve({}, { offline: true })).toContain(commit);
    expect(f.hub.requests).toEqual([]);
  });

  test('is repaired where it lacks a file or has one of a wrong size', async () => {
    const commit = f.hub.publish('org/model', { files: smallModel() });
    fill(commit);
    const repo = join(f.cacheFolder, 'models--org--model');
    rmSync(join(repo, 'blobs', f.hub.etag('org/model', 'tokenizer.json')));
    writeFileSync(join(repo, 'blobs', f.hub.etag('org/model', 'model.safetensors')), 'cut off');
    const folder = await f.resolve({});
    expect(f.hub.downloads.sort()).toEqual(['model.safetensors bytes=0-299999', 'tokenizer.json bytes=0-7']);
    expect(readFileSync(join(folder, 'model.safetensors')).equals(bytes(300_000))).toBe(true);
  });
});

describe('without a network', () => {
  test('a complete snapshot is served, with a note', async () => {
    f.hub.publish('org/model', { files: smallModel() });
    const folder = await f.resolve({});
    expect(await f.resolve({}, { endpoint: f.nowhere })).toBe(folder);
    expect(f.record.notes.at(-1)).toMatch(
      /127\.0\.0\.1:\d+ can't be reached; serving commit [0-9a-f]{40} from the cache/,
    );
  });

  test('a snapshot is no use where a file is missing', async () => {
    f.hub.publish('org/model', { files: sharded() });
    const folder = await f.resolve({});
    rmSync(join(folder, 'model-00002-of-00002.safetensors'));
    await expect(f.resolve({}, { endpoint: f.nowhere })).rejects.toMatchObject({ code: 'UNREACHABLE' });
    await expect(f.resolve({}, { offline: true })).rejects.toMatchObject({
      code: 'DOWNLOAD_FAILED',
      message: expect.stringMatching(
        /HF_HUB_OFFLINE is set, and .* lacks model-00002-of-00002\.safetensors of org\/model/,
      ),
    });
  });

  test('a revision that was never complete is not taken for one', async () => {
    f.hub.publish('org/model', { files: smallModel() });
    f.hub.faults.push({ at: 'cdn', status: 404 });
    await expect(f.resolve({})).rejects.toMatchObject({ code: 'DOWNLOAD_FAILED' });
    expect(existsSync(join(f.cacheFolder, 'models--org--model', 'refs', 'main'))).toBe(false);
    await expect(f.resolve({}, { offline: true })).rejects.toThrow(/lacks revision main of org\/model/);
  });
});
