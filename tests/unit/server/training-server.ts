import type { ServerArgs } from '../../../lib/protocol/server-args.js';
import { type RunningServer, startServer } from '../../../lib/server/server.js';
import { startWorker, type WorkerHandle } from '../../../lib/worker/supervisor.js';
import { serverArgs } from './test-server.js';

/** The demo model in worker processes, and what trainers call. */
export interface TrainingServer {
  server: RunningServer;
  /** All that were started, in order. */
  workers: WorkerHandle[];
  /** The folder that each was told to load. */
  loaded: string[];
  post(path: string, body?: object): Promise<{ status: number; json: any }>;
  get(path: string): Promise<{ status: number; json: any }>;
  /** Starts a request of so many greedy tokens. */
  generate(inputIds: number[], count: number): Promise<any>;
  /** Waits until so many requests run or wait. */
  untilRequests(count: number): Promise<void>;
}

export async function startTrainingServer(overrides: Partial<ServerArgs> = {}): Promise<TrainingServer> {
  const workers: WorkerHandle[] = [];
  const loaded: string[] = [];
  const args = serverArgs({ maxTotalTokens: 16_384, threads: 1, drainTimeout: 60, ...overrides });
  const server = await startServer(args, {
    version: '1.2.3',
    log: () => {},
    onProgress: () => {},
    startWorker: async (workerArgs, handlers, signal) => {
      loaded.push(workerArgs.modelPath);
      const worker = await startWorker(workerArgs, handlers, signal);
      workers.push(worker);
      return worker;
    },
  });
  const read = async (response: Response) => {
    const text = await response.text();
    return { status: response.status, json: text.startsWith('{') || text.startsWith('[') ? JSON.parse(text) : text };
  };
  const post = async (path: string, body?: object) =>
    read(
      await fetch(server.url + path, {
        method: 'POST',
        ...(body && { headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) }),
      }),
    );
  const get = async (path: string) => read(await fetch(server.url + path));
  const generate = async (inputIds: number[], count: number) => {
    const sampling = { temperature: 0, max_new_tokens: count, ignore_eos: true };
    return (await post('/generate', { input_ids: inputIds, return_logprob: true, sampling_params: sampling })).json;
  };
  const untilRequests = async (count: number) => {
    for (;;) {
      const { scheduler } = (await get('/server_info')).json;
      if (scheduler.running_requests + scheduler.waiting_requests === count) return;
    }
  };
  return { server, workers, loaded, post, get, generate, untilRequests };
}

/** Tokens and log-probabilities of an answer. */
export function outcome({ output_ids, meta_info }: any): unknown {
  return [output_ids, meta_info.output_token_logprobs];
}
