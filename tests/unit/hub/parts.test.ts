import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdtempSync, openSync, readdirSync, readFileSync, readlinkSync, rmSync } from 'node:fs';
import { truncateSync, unlinkSync, writeFileSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeEach, describe, expect, test } from '@jest/globals';
import { FileChecksum } from '../../../lib/hub/checksum.js';
import { Limit } from '../../../lib/hub/limit.js';
import { withLock } from '../../../lib/hub/lock.js';
import { checkRevision, isRepoName } from '../../../lib/hub/names.js';
import { PartialFile, SYNC_BYTES } from '../../../lib/hub/partial-file.js';
import { SEGMENT_BYTES } from '../../../lib/hub/segments.js';
import { retryAfterMs, TemporaryError, withRetries } from '../../../lib/hub/retry.js';
import { readHubSettings } from '../../../lib/hub/settings.js';
import { DetinferError } from '../../../lib/protocol/errors.js';

const root = mkdtempSync(join(tmpdir(), 'detinfer-hub-parts-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));

describe('a partial file', () => {
  const SIZE = SEGMENT_BYTES + 1000;
  let count = 0;
  let blob = '';
  beforeEach(() => {
    blob = join(root, `blob${(count += 1)}`);
  });

  /** Leaves a file with the second segment and 100 bytes of the first. */
  async function leave(): Promise<void> {
    const partial = new PartialFile(blob, SIZE);
    const [first, second] = partial.segments as [never, never];
    partial.append(second, Buffer.alloc(1000, 2));
    partial.append(first, Buffer.alloc(60, 1));
    partial.append(first, Buffer.alloc(40, 1));
    await partial.close();
  }

  /** The descriptor under which this process has a file open. */
  function descriptorOf(path: string): number {
    const found = readdirSync('/proc/self/fd').find((name) => {
      try {
        return readlinkSync(`/proc/self/fd/${name}`) === path;
      } catch {
        return false; // It was that of the folder.
      }
    });
    return Number(found);
  }

  /** Puts another file behind a descriptor: opening takes the lowest that is free. */
  function replace(descriptor: number, path: string): void {
    closeSync(descriptor);
    expect(openSync(path, 'r+')).toBe(descriptor);
  }

  async function resumed(size = SIZE): Promise<number[]> {
    const partial = new PartialFile(blob, size);
    await partial.close();
    return partial.segments.map(({ written }) => written);
  }

  test('goes on where it ended, in each segment', async () => {
    await leave();
    const partial = new PartialFile(blob, SIZE);
    expect(partial.segments.map(({ written }) => written)).toEqual([100, 1000]);
    expect([partial.written, partial.front]).toEqual([1100, 100]);
    partial.append(partial.segments[0]!, Buffer.alloc(SEGMENT_BYTES - 100, 3));
    expect(partial.front).toBe(SIZE);
    await partial.commit();
    await partial.close();
    const bytes = readFileSync(blob);
    const whole = Buffer.concat([Buffer.alloc(100, 1), Buffer.alloc(SEGMENT_BYTES - 100, 3), Buffer.alloc(1000, 2)]);
    expect(bytes.equals(whole)).toBe(true);
  });

  test('trusts after a restart of the machine only what was on the disk', async () => {
    const size = 2 * SEGMENT_BYTES;
    const partial = new PartialFile(blob, size);
    const [first, second] = partial.segments as [never, never];
    partial.append(second, Buffer.alloc(SYNC_BYTES - 10, 2));
    partial.append(first, Buffer.alloc(10, 1));
    // The sync is under way.
    partial.append(first, Buffer.alloc(5, 1));
    await partial.close();
    expect(await resumed(size)).toEqual([15, SYNC_BYTES - 10]);
    const table = readFileSync(`${blob}.detinfer.ranges`);
    table[20]! ^= 1;
    writeFileSync(`${blob}.detinfer.ranges`, table);
    expect(await resumed(size)).toEqual([10, SYNC_BYTES - 10]);
  });

  test.each<[string, () => void]>([
    ['the table is missing', () => unlinkSync(`${blob}.detinfer.ranges`)],
    ['the data are missing', () => unlinkSync(`${blob}.detinfer.incomplete`)],
    [
      'the data are shorter than the table says',
      () => truncateSync(`${blob}.detinfer.incomplete`, SEGMENT_BYTES + 999),
    ],
    ['the table is cut off', () => truncateSync(`${blob}.detinfer.ranges`, 60)],
    ['the table is empty', () => truncateSync(`${blob}.detinfer.ranges`, 0)],
  ])('begins anew where %s', async (_name, damage) => {
    await leave();
    damage();
    expect(await resumed()).toEqual([0, 0]);
  });

  test('a segment that began anew during a sync is not taken for what was synced', async () => {
    const size = 2 * SEGMENT_BYTES;
    const partial = new PartialFile(blob, size);
    const [first, second] = partial.segments as [never, never];
    partial.append(second, Buffer.alloc(10, 2));
    partial.append(first, Buffer.alloc(SYNC_BYTES - 10, 1));
    partial.restart(first);
    await partial.close();
    expect(await resumed(size)).toEqual([0, 10]);
  });

  test('a segment takes no more bytes than it has', async () => {
    const partial = new PartialFile(blob, SIZE);
    expect(() => partial.append(partial.segments[1]!, Buffer.alloc(1001))).toThrow('more bytes');
    await partial.discard();
  });

  test('remembers that a sync failed, though another one would succeed', async () => {
    const partial = new PartialFile(blob, SIZE);
    partial.append(partial.segments[1]!, Buffer.alloc(1000, 2));
    // What is not on a disk can't be synced to it.
    const descriptor = descriptorOf(partial.path);
    replace(descriptor, '/dev/null');
    await expect(partial.flush()).rejects.toMatchObject({ code: 'EINVAL' });
    replace(descriptor, partial.path);
    await expect(partial.flush()).rejects.toMatchObject({ code: 'EINVAL' });
    await expect(partial.commit()).rejects.toMatchObject({ code: 'EINVAL' });
    await partial.close();
  });

  test('begins anew where the file has another size now', async () => {
    await leave();
    const partial = new PartialFile(blob, SIZE - 1);
    expect(partial.written).toBe(0);
    await partial.close();
  });
});

describe('a lock', () => {
  const never = new AbortController().signal;

  test('is held by one at a time', async () => {
    const path = join(root, 'locks', 'one.lock');
    let holders = 0;
    let most = 0;
    let waits = 0;
    const hold = (): Promise<void> =>
      withLock(
        path,
        never,
        () => (waits += 1),
        async () => {
          holders += 1;
          most = Math.max(most, holders);
          await new Promise((resolve) => setTimeout(resolve, 30));
          holders -= 1;
        },
      );
    await Promise.all([hold(), hold(), hold()]);
    expect([most, waits > 0]).toEqual([1, true]);
  });

  test("is that of flock(2), which Python's filelock takes, and ends with its process", async () => {
    const path = join(root, 'other.lock');
    const holder = spawn('flock', [path, 'sh', '-c', 'echo held; exec sleep 60'], {
      stdio: ['ignore', 'pipe', 'ignore'],
      detached: true,
    });
    await once(holder.stdout!, 'data');
    let waited = false;
    const taken = withLock(
      path,
      never,
      () => (waited = true),
      async () => 'taken',
    );
    while (!waited) await new Promise((resolve) => setTimeout(resolve, 10));
    process.kill(-(holder.pid as number), 'SIGKILL');
    expect(await taken).toBe('taken');
  });

  test('excludes others as long as it is held', async () => {
    const path = join(root, 'mine.lock');
    const tryIt = (): number => {
      try {
        execFileSync('flock', ['--nonblock', path, 'true']);
        return 0;
      } catch (error) {
        return (error as { status: number }).status;
      }
    };
    expect(
      await withLock(
        path,
        never,
        () => {},
        async () => tryIt(),
      ),
    ).toBe(1);
    expect(tryIt()).toBe(0);
  });
});

describe('retries', () => {
  const options = { attempts: 3, firstWaitMs: 1, onRetry: () => {}, signal: new AbortController().signal };

  test('give up after so many failures in a row', async () => {
    let calls = 0;
    const failing = (): Promise<never> => Promise.reject(new TemporaryError(`failure ${(calls += 1)}`));
    await expect(withRetries(failing, options)).rejects.toThrow('failure 3');
  });

  test('count anew when an attempt got further', async () => {
    let calls = 0;
    const action = async (): Promise<string> => {
      calls += 1;
      if (calls > 6) return 'done';
      throw new TemporaryError('again', { progressed: calls % 2 === 0 });
    };
    expect(await withRetries(action, options)).toBe('done');
  });

  test('wait as long as the server says, and not for what will not change', async () => {
    const waits: number[] = [];
    let calls = 0;
    const action = async (): Promise<string> => {
      if ((calls += 1) === 1) throw new TemporaryError('busy', { waitMs: 30 });
      throw new Error('for good');
    };
    const onRetry = (_problem: string, waitMs: number): void => void waits.push(waitMs);
    await expect(withRetries(action, { ...options, onRetry })).rejects.toThrow('for good');
    expect(waits).toEqual([30]);
  });

  test('read Retry-After', () => {
    expect(retryAfterMs('7')).toBe(7000);
    expect(retryAfterMs(new Date(Date.now() + 60_000).toUTCString())).toBeGreaterThan(50_000);
    expect([retryAfterMs(null), retryAfterMs('soon'), retryAfterMs('Thu, 01 Jan 1970 00:00:00 GMT')]).toEqual([
      0, 0, 0,
    ]);
  });
});

test('a limit lets so many run at a time, in order, and survives failures', async () => {
  const limit = new Limit(2);
  const order: number[] = [];
  let running = 0;
  let most = 0;
  const action = (i: number) => async (): Promise<void> => {
    running += 1;
    most = Math.max(most, running);
    order.push(i);
    await new Promise((resolve) => setTimeout(resolve, 5));
    running -= 1;
    if (i === 1) throw new Error('one of them');
  };
  const results = await Promise.allSettled([0, 1, 2, 3, 4].map((i) => limit.run(action(i))));
  expect(results.map(({ status }) => status === 'fulfilled')).toEqual([true, false, true, true, true]);
  expect([most, order]).toEqual([2, [0, 1, 2, 3, 4]]);
});

test('checksums are those of sha256sum and git', () => {
  const path = join(root, 'hello');
  writeFileSync(path, 'hello\n');
  const job = { path, size: 6 };
  expect(new FileChecksum({ ...job, algorithm: 'git' }).digest()).toBe('ce013625030ba8dba906f756967f9e9ca394464a');
  const sum = execFileSync('sha256sum', [path], { encoding: 'utf8' }).slice(0, 64);
  expect(new FileChecksum({ ...job, algorithm: 'sha256' }).digest()).toBe(sum);
});

describe('names', () => {
  test.each(['Qwen/Qwen3-8B', 'a/b', 'org_1/m.odel'])('%s may be on the hub', (name) =>
    expect(isRepoName(name)).toBe(true),
  );
  test.each([
    'model',
    './model',
    '../model',
    '/a/b',
    'a/b/c',
    'a/',
    'a/-b',
    'a/b.',
    'a--b/c',
    'a/b c',
    `a/${'b'.repeat(95)}`,
  ])('%s can not', (name) => expect(isRepoName(name)).toBe(false));
  test.each(['main', 'v1.0', 'refs/pr/1', 'a'.repeat(40)])('%s may be a revision', (name) => checkRevision(name));
  test.each(['', '.', '..', 'a/../b', '/a', 'a//b', 'a b', 'a?b'])("'%s' can not", (name) => {
    expect(() => checkRevision(name)).toThrow(DetinferError);
  });
});

describe('settings', () => {
  const home = join(root, 'home');
  const read = (env: NodeJS.ProcessEnv) => readHubSettings({ HF_HOME: home, ...env });

  test('come from the variables that Python tools read', () => {
    expect(read({})).toEqual({
      endpoint: 'https://huggingface.co',
      cacheFolder: join(home, 'hub'),
      token: null,
      offline: false,
    });
    expect(read({ HF_ENDPOINT: 'https://hub.example/hf/' }).endpoint).toBe('https://hub.example/hf');
    expect(readHubSettings({ XDG_CACHE_HOME: '/x' }).cacheFolder).toBe('/x/huggingface/hub');
    expect(readHubSettings({}).cacheFolder).toBe(join(homedir(), '.cache', 'huggingface', 'hub'));
    expect(read({ HF_HUB_CACHE: '/c', HUGGINGFACE_HUB_CACHE: '/d' }).cacheFolder).toBe('/c');
    expect(read({ HF_HUB_CACHE: '~/c' }).cacheFolder).toBe(join(homedir(), 'c'));
    for (const on of ['1', 'true', 'YES', 'on']) expect(read({ HF_HUB_OFFLINE: on }).offline).toBe(true);
    for (const off of ['', '0', 'false']) expect(read({ HF_HUB_OFFLINE: off }).offline).toBe(false);
  });

  test('take the token from HF_TOKEN, or else from the file that a login leaves', () => {
    const file = join(root, 'token');
    writeFileSync(file, 'from-file\n');
    expect(read({ HF_TOKEN_PATH: file }).token).toBe('from-file');
    expect(read({ HF_TOKEN_PATH: file, HF_TOKEN: ' from-variable ' }).token).toBe('from-variable');
  });

  test('refuse an endpoint that is no URL', () => {
    expect(() => read({ HF_ENDPOINT: 'hub.example' })).toThrow(/HF_ENDPOINT must be a URL/);
  });
});
