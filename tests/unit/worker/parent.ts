/**
 * A server process reduced to its worker, for tests that kill it: starts one on the demo model, gives it work without
 * end and prints "ready".
 */
import { startWorker } from '../../../lib/worker/supervisor.js';
import { makeRequest } from '../scheduler/requests.js';
import { workerArgs } from './worker-args.js';

const worker = await startWorker(workerArgs(), {
  onProgress: () => {},
  log: () => {},
  onStep: () => {},
  onExit: (error) => {
    throw error;
  },
});
const prompt = Array.from({ length: 100 }, (_, i) => i);
worker.submit([makeRequest('endless', prompt, { stop: { maxNewTokens: 100_000 } })]);
process.stdout.write('ready\n');
