/** Entry of the process that probe.ts starts: prints null if the GPUs (the first's index, and how many) can be used, else the error. */
import { toErrorData } from '../protocol/errors.js';
import { checkGpus } from './gpu.js';
import { loadAddon } from './load-addon.js';

function problem(): unknown {
  try {
    checkGpus(loadAddon('cuda'), Number(process.argv[2]), Number(process.argv[3]));
    return null;
  } catch (error) {
    return toErrorData(error);
  }
}

process.stdout.write(JSON.stringify(problem()));
