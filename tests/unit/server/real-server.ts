import OpenAI from 'openai';

import type { ServerArgs } from '../../../lib/protocol/server-args.js';
import { type RunningServer, startServer } from '../../../lib/server/server.js';
import { serverArgs } from './test-server.js';

/** The demo model in a worker process of its own, and OpenAI's client for it. */
export interface RealServer {
  server: RunningServer;
  client: OpenAI;
  /** POSTs a body and returns the JSON of the answer. */
  post(path: string, body: object): Promise<any>;
}

export async function startRealServer(overrides: Partial<ServerArgs> = {}): Promise<RealServer> {
  const args = serverArgs({ maxTotalTokens: 16_384, threads: 1, maxRunningRequests: 64, ...overrides });
  const server = await startServer(args, { version: '1.2.3', log: () => {}, onProgress: () => {} });
  const client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'none', maxRetries: 0 });
  const post = async (path: string, body: object) => {
    const headers = { 'content-type': 'application/json' };
    return (await fetch(server.url + path, { method: 'POST', headers, body: JSON.stringify(body) })).json();
  };
  return { server, client, post };
}
