import { fileURLToPath } from 'node:url';
import { toServerArgs } from '../../../lib/cli/server-flags.js';
import type { ServerArgs } from '../../../lib/protocol/server-args.js';

const DEMO_MODEL = fileURLToPath(new URL('../../../../models/demo', import.meta.url));

/** The flags of a small worker on the demo model. */
export function workerArgs(given: Partial<ServerArgs> = {}): ServerArgs {
  return { ...toServerArgs({}, DEMO_MODEL), maxTotalTokens: 8192, threads: 1, ...given };
}
