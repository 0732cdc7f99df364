#!/usr/bin/env node
// Measures `detinfer download` against a local hub: what kill -9 costs, and its speed beside curl's. Build first.
//   node scripts/measure-download.mjs [megabytes, 200 by default]
import { spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { LocalHub } from '../dist/tests/local-hub.js';
import { ROOT } from './prepare.mjs';

const KILLS = 20;
const ROUNDS = 3;
/** Bytes on their way: a link that is busy for 2 ms at 1 Gbit/s. What is on its way is lost with a process. */
const IN_FLIGHT = 256_000;
/** Bytes per second of the links that the speed is measured on; the local one has no limit. */
const LINKS = [
  ['a link of 200 Mbit/s', 25e6],
  ['a link of 1 Gbit/s', 125e6],
  ['the loopback interface', Infinity],
];

const megabytes = Number(process.argv[2] ?? 200);
const folder = mkdtempSync(join(tmpdir(), 'detinfer-measure-download-'));
const cache = join(folder, 'cache');
const hub = await LocalHub.start();

function detinfer(repo) {
  const env = { ...process.env, HF_ENDPOINT: hub.endpoint, HF_HUB_CACHE: cache };
  const program = join(ROOT, 'bin', 'detinfer.js');
  return spawn(process.execPath, [program, 'download', repo], { env, stdio: ['ignore', 'pipe', 'inherit'] });
}

/** Resolves to the seconds that a program took and what it printed. */
async function timed(child) {
  const begin = performance.now();
  let output = '';
  child.stdout.on('data', (data) => (output += data));
  const code = await new Promise((resolve) => child.on('close', resolve));
  if (code !== 0) throw new Error(`${child.spawnargs.join(' ')} ended with exit code ${code}`);
  return { seconds: (performance.now() - begin) / 1000, output: output.trim() };
}

/** Kills downloads of a repository with two shards at random moments, and reports the bytes that were sent twice. */
async function interruptions() {
  const shards = ['model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors'];
  const contents = shards.map(() => randomBytes((megabytes / 2) * 1e6));
  const index = JSON.stringify({ weight_map: { a: shards[0], b: shards[1] } });
  const files = { 'config.json': '{"c":1}', 'tokenizer.json': '{"t":1}', 'model.safetensors.index.json': index };
  shards.forEach((name, i) => (files[name] = contents[i]));
  hub.publish('org/sharded', { files });
  const blobs = shards.map((name) => join(cache, 'models--org--sharded', 'blobs', hub.etag('org/sharded', name)));
  const held = () => blobs.reduce((sum, blob) => sum + heldBytes(blob), 0);

  for (let kills = 0; kills < KILLS; kills += 1) {
    const lost = hub.sentBytes - held();
    const target = hub.sentBytes + (2 * Math.random() * megabytes * 1e6) / (KILLS + 2);
    hub.holdAfter = hub.sentBytes;
    const child = detinfer('org/sharded');
    const ended = new Promise((resolve) => child.on('close', resolve));
    while (hub.sentBytes < target && child.exitCode === null) {
      hub.holdAfter = Math.max(hub.holdAfter, lost + held() + IN_FLIGHT);
      await sleep(1);
    }
    child.kill('SIGKILL');
    await ended;
  }
  hub.holdAfter = Infinity;
  const { output } = await timed(detinfer('org/sharded'));
  const isRight = shards.every((name, i) => sha256(readFileSync(join(output, name))) === sha256(contents[i]));
  const again = hub.sentBytes / (megabytes * 1e6) - 1;
  console.log(
    `${KILLS} kills: ${isRight ? 'the right bytes' : 'WRONG BYTES'}, ${(100 * again).toFixed(2)}% of them sent again`,
  );
  return isRight && again < 0.05;
}

/** Bytes of a blob that the next process will not ask for. */
function heldBytes(blob) {
  if (existsSync(blob)) return statSync(blob).size;
  try {
    const table = readFileSync(`${blob}.detinfer.ranges`);
    return Array.from({ length: (table.length - 48) / 8 }, (_, i) => table.readUInt32LE(48 + 8 * i)).reduce(
      (a, b) => a + b,
      0,
    );
  } catch {
    return existsSync(blob) ? statSync(blob).size : 0;
  }
}

/** Downloads one file with detinfer, start-up and checksum included, and with curl, in turns. */
async function speed() {
  hub.publish('org/single', { files: { 'config.json': '{"s":1}', 'model.safetensors': randomBytes(megabytes * 1e6) } });
  const url = `${hub.endpoint}/org/single/resolve/main/model.safetensors`;
  const target = join(folder, 'curl');
  for (const [name, rate] of LINKS) {
    hub.bytesPerSecond = rate;
    const rounds = [];
    for (let i = 0; i < ROUNDS; i += 1) {
      rmSync(cache, { recursive: true, force: true });
      rmSync(target, { force: true });
      const own = await timed(detinfer('org/single'));
      const curl = await timed(spawn('curl', ['-sSL', '-o', target, url], { stdio: ['ignore', 'pipe', 'inherit'] }));
      rounds.push([own.seconds, curl.seconds].map((seconds) => megabytes / seconds));
    }
    const [own, curl] = [0, 1].map((column) => median(rounds.map((round) => round[column])));
    const ratio = median(rounds.map(([a, b]) => a / b));
    console.log(
      `${name}: detinfer ${own.toFixed(0)} MB/s, curl ${curl.toFixed(0)} MB/s, ratio ${ratio.toFixed(2)} (medians of ${ROUNDS})`,
    );
  }
}

function median(values) {
  return values.sort((a, b) => a - b)[Math.floor(values.length / 2)];
}

function sha256(bytes) {
  return createHash('sha256').update(bytes).digest('hex');
}

try {
  if (!(await interruptions())) process.exitCode = 1;
  await speed();
} finally {
  await hub.stop();
  rmSync(folder, { recursive: true, force: true });
}
