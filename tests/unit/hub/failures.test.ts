import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { PartialFile } from '../../../lib/hub/partial-file.js';
import { SEGMENT_BYTES } from '../../../lib/hub/segments.js';
import type { Fault } from '../../local-hub.js';
import { bytes, fixture, smallModel } from './set-up.js';

const f = fixture();

const blobs = (): string => join(f.cacheFolder, 'models--org--model', 'blobs');
const weightsOf = (folder: string): Buffer => readFileSync(join(folder, 'model.safetensors'));

describe('a failure that passes', () => {
  const passing: [string, Fault][] = [
    ['a rate limit of the API', { at: 'api', status: 429, headers: { 'retry-after': '0' }, times: 2 }],
    ['a broken gateway of the API', { at: 'api', status: 502, times: 2 }],
    ['a busy hub', { at: 'head', status: 503, times: 2 }],
    ['a rate limit of files', { at: 'hub', status: 429, times: 2 }],
    ['a broken server of links', { at: 'cdn', status: 500, times: 2 }],
    ['a link that has expired', { at: 'cdn', status: 403 }],
    ['a connection that breaks', { at: 'cdn', dropAfter: 100_000, times: 5 }],
    ['a connection that breaks before the first byte', { at: 'cdn', dropAfter: 0, times: 2 }],
  ];
  test.each(passing)('%s is tried again', async (_name, fault) => {
    const weights = bytes(1_000_000);
    f.hub.publish('org/model', { files: smallModel(weights) });
    f.hub.faults.push({ ...fault });
    expect(weightsOf(await f.resolve({})).equals(weights)).toBe(true);
    expect(f.record.notes.length).toBeGreaterThan(0);
    // What had arrived is not asked for again.
    expect(f.hub.sentBytes).toBe(weights.length);
  });

  test('ends the download when it stays, and what arrived is used by the next one', async () => {
    const weights = bytes(1_000_000);
    f.hub.publish('org/model', { files: smallModel(weights) });
    // One attempt that gets somewhere, and three that do not.
    f.hub.faults.push({ at: 'cdn', dropAfter: 500_000 }, { at: 'cdn', status: 500, times: 2 });
    await expect(f.resolve({})).rejects.toMatchObject({
      code: 'DOWNLOAD_FAILED',
      message: expect.stringMatching(
        /^model\.safetensors could not be downloaded: localhost:\d+ answered with status 500\. What arrived is kept/,
      ),
    });
    const folder = await f.resolve({});
    expect(weightsOf(folder).equals(weights)).toBe(true);
    expect(f.record.files.get('model.safetensors')).toMatchObject({ resumed: 500_000, received: 500_000 });
    expect(f.hub.sentBytes).toBe(weights.length);
  });

  test('a small file that cannot be put in its place leaves nothing beside it', async () => {
    f.hub.publish('org/model', { files: smallModel() });
    const blob = join(blobs(), f.hub.etag('org/model', 'config.json'));
    mkdirSync(blob, { recursive: true });
    await expect(f.resolve({})).rejects.toThrow();
    expect(readdirSync(blobs()).filter((name) => name.endsWith('.new'))).toEqual([]);
    rmSync(blob, { recursive: true });
    expect(existsSync(join(await f.resolve({}), 'config.json'))).toBe(true);
  });

  test('a link that is good for one request is renewed for each segment', async () => {
    const weights = bytes(2 * SEGMENT_BYTES + 1);
    f.hub.publish('org/model', { files: smallModel(weights) });
    f.hub.linkUses = 1;
    expect(weightsOf(await f.resolve({})).equals(weights)).toBe(true);
  });

  test('a server that ignores ranges is good enough for a file of one segment', async () => {
    const weights = bytes(1_000_000);
    f.hub.publish('org/model', { files: smallModel(weights) });
    f.hub.faults.push({ at: 'cdn', dropAfter: 500_000 }, { at: 'cdn', ignoreRange: true });
    expect(weightsOf(await f.resolve({})).equals(weights)).toBe(true);
    expect(f.record.files.get('model.safetensors')?.received).toBe(weights.length);
  });
});

describe('a failure that stays', () => {
  test.each([false, true])(
    'a wrong checksum (of a large file: %s) is an error, and the bytes are gone',
    async (isLarge) => {
      f.hub.publish('org/model', { files: smallModel() });
      f.hub.faults.push({ at: isLarge ? 'cdn' : 'hub', corrupt: true });
      await expect(f.resolve({})).rejects.toMatchObject({
        code: 'DOWNLOAD_FAILED',
        message: expect.stringMatching(
          isLarge ? /^model\.safetensors arrived with the SHA-256 / : /arrived with the git id /,
        ),
      });
      const left = existsSync(blobs()) ? readdirSync(blobs()) : [];
      if (isLarge) expect(left).not.toContain(f.hub.etag('org/model', 'model.safetensors'));
      expect(weightsOf(await f.resolve({})).equals(bytes(300_000))).toBe(true);
    },
  );

  test('a wrong checksum is found in a file of many segments, too', async () => {
    const weights = bytes(SEGMENT_BYTES + 1);
    f.hub.publish('org/model', { files: smallModel(weights) });
    f.hub.faults.push({ at: 'cdn', corrupt: true });
    await expect(f.resolve({})).rejects.toThrow(/SHA-256/);
    expect(readdirSync(blobs()).filter((name) => name.includes('detinfer'))).toEqual([]);
  });

  test('a wrong checksum is found in a file that began anew after its first bytes had been right', async () => {
    f.hub.publish('org/model', { files: smallModel(bytes(10_000_000)) });
    f.hub.faults.push({ at: 'cdn', dropAfter: 9_000_000 }, { at: 'cdn', ignoreRange: true, corrupt: true });
    await expect(f.resolve({})).rejects.toThrow(/SHA-256/);
    expect(readdirSync(blobs())).not.toContain(f.hub.etag('org/model', 'model.safetensors'));
  });

  test('a server without ranges is an error for a file of many segments', async () => {
    f.hub.publish('org/model', { files: smallModel(bytes(SEGMENT_BYTES + 1)) });
    f.hub.faults.push({ at: 'cdn', ignoreRange: true });
    await expect(f.resolve({})).rejects.toThrow(/does not serve ranges/);
  });

  test('a disk without space for it is found before anything is written', async () => {
    f.hub.publish('org/model', { files: smallModel() });
    f.hub.claimSize('org/model', 'model.safetensors', 1e17);
    await expect(f.resolve({})).rejects.toMatchObject({
      code: 'DOWNLOAD_FAILED',
      message: expect.stringMatching(
        /^org\/model needs 100000000\.\d\d GB more, and the disk of .* has [\d.]+ GB free/,
      ),
    });
    expect(existsSync(f.cacheFolder)).toBe(false);
  });

  test('a disk that fills up meanwhile is an error that says so', async () => {
    f.hub.publish('org/model', { files: smallModel() });
    mkdirSync(blobs(), { recursive: true });
    const partial = new PartialFile(join(blobs(), f.hub.etag('org/model', 'model.safetensors')), 300_000);
    await partial.close();
    // Whatever is written to this device meets a full disk.
    rmSync(partial.path);
    symlinkSync('/dev/full', partial.path);
    await expect(f.resolve({})).rejects.toMatchObject({
      code: 'DOWNLOAD_FAILED',
      message: expect.stringMatching(/^the disk of .* is full\. Free some space/),
    });
  });

  test.each([
    [
      { repo: 'org/nothing' },
      null,
      'INVALID_MODEL',
      /no model org\/nothing at http.* Check the name\. If it is private, set HF_TOKEN/,
    ],
    [{ repo: 'org/private' }, null, 'INVALID_MODEL', /If it is private, set HF_TOKEN/],
    [{ repo: 'org/private' }, 'wrong', 'INVALID_MODEL', /your token lacks access/],
    [{ repo: 'org/gated' }, null, 'ACCESS_DENIED', /org\/gated is gated: ask for access at http.*; set HF_TOKEN/],
    [{ repo: 'org/gated' }, 'wrong', 'ACCESS_DENIED', /the token's account lacks it/],
    [{ revision: 'v9' }, null, 'INVALID_MODEL', /org\/model has no revision v9/],
    [{ revision: '../main' }, null, 'INVALID_FLAG', /--revision needs a branch, a tag or a commit/],
    [{ repo: 'org/pickles' }, null, 'INVALID_MODEL', /neither model\.safetensors nor model\.safetensors\.index\.json/],
    [
      { repo: 'org/broken' },
      null,
      'INVALID_MODEL',
      /model\.safetensors\.index\.json names b\.safetensors, which is missing/,
    ],
    [{ repo: 'org/escape' }, null, 'INVALID_MODEL', /model\.safetensors\.index\.json names no shards/],
  ])('%j with token %s', async (request, token, code, message) => {
    const files = smallModel();
    const { 'model.safetensors': _, ...pickles } = files;
    f.hub.publish('org/model', { files });
    f.hub.publish('org/private', { files, access: 'private' });
    f.hub.publish('org/gated', { files, access: 'gated' });
    f.hub.publish('org/pickles', { files: pickles });
    const index = (name: string): string => JSON.stringify({ weight_map: { x: name } });
    f.hub.publish('org/broken', { files: { ...pickles, 'model.safetensors.index.json': index('b.safetensors') } });
    f.hub.publish('org/escape', { files: { ...pickles, 'model.safetensors.index.json': index('../b.safetensors') } });
    await expect(f.resolve(request, { token })).rejects.toMatchObject({
      code,
      message: expect.stringMatching(message),
    });
  });

  test.each<[string, Fault]>([
    ['a login page', { at: 'api', status: 200, text: '<html>' }],
    ['a listing that is none', { at: 'api', status: 200, text: 'null' }],
    ['a redirection to nowhere', { at: 'head', status: 302, headers: { location: 'http://' } }],
    ['a redirection to a file', { at: 'head', status: 302, headers: { location: 'file:///etc/hosts' } }],
  ])('%s for an answer is an error that asks whether it is a hub', async (_name, fault) => {
    f.hub.publish('org/model', { files: smallModel() });
    f.hub.faults.push(fault);
    await expect(f.resolve({})).rejects.toMatchObject({
      code: 'DOWNLOAD_FAILED',
      message: expect.stringMatching(/^org\/model: the hub at http.* (answers of no model hub|redirects to '.*')\. Is HF_ENDPOINT/),
    });
  });

  test.each([-1, 1.5])('a size of %s is an error that names the file', async (size) => {
    f.hub.publish('org/model', { files: smallModel() });
    f.hub.claimSize('org/model', 'config.json', size);
    await expect(f.resolve({})).rejects.toThrow(/gives no usable size for config\.json/);
  });

  test('a cache that is no folder is an error that says what to do', async () => {
    f.hub.publish('org/model', { files: smallModel() });
    writeFileSync(f.cacheFolder, '');
    await expect(f.resolve({})).rejects.toThrow(/can't be written \(ENOTDIR\)\. Set HF_HUB_CACHE/);
  });

  test('a hub that does not answer is an error that names it', async () => {
    await expect(f.resolve({}, { endpoint: f.nowhere })).rejects.toMatchObject({
      code: 'UNREACHABLE',
      message: expect.stringMatching(/^the model hub at http:\/\/127\.0\.0\.1:\d+ can't be used: .*ECONNREFUSED/),
    });
  });

  test('a token that the hub does not know is an error that says so', async () => {
    f.hub.publish('org/model', { files: smallModel() });
    f.hub.faults.push({ at: 'api', status: 401 });
    await expect(f.resolve({}, { token: 'hf_wrong' })).rejects.toMatchObject({
      code: 'ACCESS_DENIED',
      message: expect.stringMatching(/HF_TOKEN is not valid there/),
    });
  });
});
