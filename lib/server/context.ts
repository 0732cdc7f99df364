import type { ServerArgs } from '../protocol/server-args.js';
import type { Frontend } from './frontend.js';
import type { Log } from './worker-client.js';

/** What routes work with. */
export interface ServerContext {
  args: ServerArgs;
  frontend: Frontend;
  /** Of detinfer. */
  version: string;
  log: Log;
}
