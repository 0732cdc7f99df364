import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, expect, test } from '@jest/globals';
import { PACKAGE_ROOT } from '../../../lib/cli/package.js';
import { SEGMENT_BYTES } from '../../../lib/hub/segments.js';
import { bytes, fixture, smallModel } from './set-up.js';

const f = fixture();
const running: ChildProcess[] = [];
afterEach(() => running.splice(0).forEach((child) => child.kill('SIGKILL')));

const WEIGHTS = bytes(SEGMENT_BYTES + 3_000_000);

const IN_FLIGHT = 200_000;

interface Download {
  child: ChildProcess;
  ended: Promise<number | string>;
  output(): { folder: string; log: string };
}

/** `detinfer download` in a process of its own. */
function download(): Download {
  const env = { ...process.env, HF_ENDPOINT: f.hub.endpoint, HF_HUB_CACHE: f.cacheFolder, NO_COLOR: '1' };
  const program = join(PACKAGE_ROOT, 'bin', 'detinfer.js');
  const child = spawn(process.execPath, [program, 'download', 'org/model'], { env, stdio: ['ignore', 'pipe', 'pipe'] });
  running.push(child);
  let [folder, log] = ['', ''];
  child.stdout.on('data', (data: Buffer) => (folder += data.toString()));
  child.stderr.on('data', (data: Buffer) => (log += data.toString()));
  const ended = once(child, 'close').then(([code, signal]) => (code ?? signal) as number | string);
  return { child, ended, output: () => ({ folder: folder.trim(), log }) };
}

async function until(condition: () => boolean): Promise<void> {
  const deadline = Date.now() + 55_000;
  while (!condition()) {
    if (Date.now() > deadline) throw new Error(`it never came to ${String(condition)}`);
    await sleep(10);
  }
}

/** Bytes of the weights that the cache notes as written. */
function notedBytes(): number {
  const blob = join(f.cacheFolder, 'models--org--model', 'blobs', f.hub.etag('org/model', 'model.safetensors'));
  if (!existsSync(`${blob}.detinfer.ranges`)) return 0;
  const table = readFileSync(`${blob}.detinfer.ranges`);
  return Array.from({ length: (table.length - 48) / 8 }, (_, i) => table.readUInt32LE(48 + 8 * i)).reduce(
    (a, b) => a + b,
  );
}

async function expectComplete(last: Download): Promise<void> {
  expect([await last.ended, last.output().log]).toEqual([0, expect.anything()]);
  expect(readFileSync(join(last.output().folder, 'model.safetensors')).equals(WEIGHTS)).toBe(true);
}

describe('kill -9', () => {
  test('loses nothing that had been written', async () => {
    f.hub.publish('org/model', { files: smallModel(WEIGHTS) });
    for (const share of [0.3, 0.7]) {
      f.hub.holdAfter = Math.floor(share * WEIGHTS.length);
      const { child, ended } = download();
      await until(() => notedBytes() >= f.hub.holdAfter);
      child.kill('SIGKILL');
      expect(await ended).toBe('SIGKILL');
    }
    f.hub.holdAfter = Infinity;
    await expectComplete(download());
    expect(f.hub.sentBytes).toBe(WEIGHTS.length);
  });

  test('at random moments ends with the right bytes and does not start over', async () => {
    f.hub.publish('org/model', { files: smallModel(WEIGHTS) });
    const kills = 4;
    for (let i = 0; i < kills; i += 1) {
      const lost = f.hub.sentBytes - notedBytes();
      const target = f.hub.sentBytes + Math.random() * 0.2 * WEIGHTS.length;
      f.hub.holdAfter = lost + notedBytes();
      const { child, ended } = download();
      await until(() => {
        // What is on its way when the process ends is lost. Without a limit, a slow machine has megabytes in its sockets.
        f.hub.holdAfter = Math.max(f.hub.holdAfter, lost + notedBytes() + IN_FLIGHT);
        return f.hub.sentBytes >= target;
      });
      child.kill('SIGKILL');
      expect(await ended).toBe('SIGKILL');
    }
    f.hub.holdAfter = Infinity;
    await expectComplete(download());
    expect(f.hub.sentBytes).toBeLessThanOrEqual(WEIGHTS.length + kills * IN_FLIGHT);
  });
});

describe('two processes at once', () => {
  test('share one download', async () => {
    f.hub.publish('org/model', { files: smallModel(WEIGHTS) });
    f.hub.holdAfter = 1_000_000;
    const first = download();
    await until(() => notedBytes() > 0);
    const second = download();
    await until(() => second.output().log.includes('Waiting for another download of model.safetensors'));
    f.hub.holdAfter = Infinity;
    await expectComplete(first);
    await expectComplete(second);
    expect(second.output().folder).toBe(first.output().folder);
    expect(f.hub.sentBytes).toBe(WEIGHTS.length);
  });

  test('the one that waits goes on when the other is killed', async () => {
    f.hub.publish('org/model', { files: smallModel(WEIGHTS) });
    f.hub.holdAfter = 1_000_000;
    const first = download();
    await until(() => notedBytes() >= 1_000_000);
    const second = download();
    await until(() => second.output().log.includes('Waiting for another download of model.safetensors'));
    first.child.kill('SIGKILL');
    await first.ended;
    f.hub.holdAfter = Infinity;
    await expectComplete(second);
    expect(f.hub.sentBytes).toBe(WEIGHTS.length);
  });
});
