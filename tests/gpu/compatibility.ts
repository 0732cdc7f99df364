/**
 * What each attention backend does on this GPU, as a table for the README: every feature switched on must give the answers
 * of the CPU, and so must the server without it. Needs a GPU and the demo model:
 *   node dist/tests/gpu/compatibility.js docs/compatibility.json && npm run docs
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { PACKAGE_ROOT, PACKAGE_VERSION } from '../../lib/cli/package.js';
import { startOwnServer } from '../../lib/cli/own-server.js';
import { loadAddon } from '../../lib/engine/load-addon.js';
import { NUMERIC_CONTRACT } from '../../lib/protocol/contract.js';
import { ATTENTION_BACKENDS } from '../../lib/protocol/server-args.js';
import { BackendComparison } from '../../lib/verify/backends.js';
import { NO_PROGRESS } from '../../lib/verify/progress.js';
import { runTest } from '../../lib/verify/run.js';
import { exitCode, type ModeName, type TestOptions } from '../../lib/verify/types.js';

/** Servers whose answers must be the CPU's, and modes of `detinfer test` that the first of them must pass. */
interface Feature {
  name: string;
  servers: string[][];
  modes: ModeName[];
  options: Partial<TestOptions>;
}

const FEATURES: Feature[] = [
  { name: 'CUDA graphs', servers: [[], ['--disable-cuda-graph']], modes: ['single'], options: {} },
  {
    name: 'chunked prefill',
    servers: [['--chunked-prefill-size', '64'], ['--chunked-prefill-size', '-1']],
    modes: ['p_vs_d'],
    options: {},
  },
  { name: 'radix cache', servers: [[], ['--disable-radix-cache']], modes: ['radix_cache', 'prefix'], options: {} },
  {
    name: 'seeded sampling',
    servers: [[]],
    modes: ['single', 'mixed'],
    options: { temperature: 0.9, topP: 0.95, topK: 50, minP: 0.01 },
  },
];

const OPTIONS: TestOptions = {
  ...{ nTrials: 8, nStart: 1, temperature: 0, samplingSeed: 42, maxNewTokens: 64, frequencyPenalty: 0 },
  ...{ presencePenalty: 0, topP: null, topK: null, minP: null, returnLogprob: true, stream: false, randomSeed: 42 },
  vocabSize: null,
};

const DEMO = ['--model-path', join(PACKAGE_ROOT, 'models', 'demo'), '--enable-deterministic-inference'];

async function onServer<T>(flags: string[], use: (url: string) => Promise<T>): Promise<T> {
  const server = await startOwnServer([...DEMO, ...flags], new AbortController().signal);
  try {
    return await use(server.url);
  } finally {
    await server.stop();
  }
}

/** What differs from the CPU or within a server; null: nothing. */
async function problem(backend: string, { servers, modes, options }: Feature): Promise<string | null> {
  const all = { ...OPTIONS, ...options };
  const comparison = new BackendComparison(all, NO_PROGRESS);
  await onServer(['--device', 'cpu'], (url) => comparison.ask('cpu', url, null));
  for (const [i, flags] of servers.entries()) {
    await onServer(['--device', 'cuda', '--attention-backend', backend, ...flags], async (url) => {
      await comparison.ask([backend, ...flags].join(' '), url, null);
      if (i > 0) return;
      const report = await runTest(url, modes, all, NO_PROGRESS);
      if (exitCode(report) !== 0) throw new Error(JSON.stringify(report.modes, null, 1).slice(0, 2000));
    });
  }
  const report = comparison.report();
  return exitCode(report) === 0 ? null : JSON.stringify(report.modes[0]?.checks[0], null, 1).slice(0, 2000);
}

const [file] = process.argv.slice(2);
const cells: Record<string, Record<string, boolean>> = {};
let failed = 0;
for (const backend of ATTENTION_BACKENDS) {
  cells[backend] = {};
  for (const feature of FEATURES) {
    const found = await problem(backend, feature).catch((error: unknown) => String(error));
    console.log(`${backend}, ${feature.name} ... ${found === null ? 'yes' : `NO\n${found}`}`);
    cells[backend][feature.name] = found === null;
    if (found !== null) failed++;
  }
}
const report = {
  gpu: loadAddon('cuda').deviceNames()[0],
  date: new Date().toISOString().slice(0, 10),
  version: PACKAGE_VERSION,
  contract: NUMERIC_CONTRACT,
  trials: OPTIONS.nTrials,
  cells,
};
if (file !== undefined) writeFileSync(file, `${JSON.stringify(report, null, 2)}\n`);
console.log(`${ATTENTION_BACKENDS.length * FEATURES.length - failed} passed, ${failed} failed`);
process.exitCode = failed === 0 ? 0 : 1;
