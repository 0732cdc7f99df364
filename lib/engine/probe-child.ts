/** Entry of the process that probe.ts starts: prints null if the GPU of the given index can be used, else the error. */
import { toErrorData } from '../protocol/errors.js';
import { checkGpu } from './gpu.js';
import { loadAddon } from './load-addon.js';

function problem(): unknown {
  try {
    checkGpu(loadAddon('cuda'), Number(process.argv[2]));
    return null;
  } catch (error) {
    return toErrorData(error);
  }
}

process.stdout.write(JSON.stringify(problem()));
