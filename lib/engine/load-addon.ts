import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';

import { DetinferError } from '../protocol/errors.js';
import type { Device } from '../protocol/server-args.js';
import { addonPath, packageRoot } from './addon-path.js';
import type { NativeAddon } from './native.js';

/** What building each addon needs. */
const NEEDS: Record<Device, string> = {
  cpu: 'that needs g++, make and python3 (Debian: apt-get install g++ make python3)',
  cuda: 'that needs the CUDA toolkit (nvcc 12.3 or newer) beside g++, make and python3; or run on the CPU with --device cpu',
};

const loaded = new Map<Device, NativeAddon>();

/** Loads the native engine for a device. @throws DetinferError ENGINE_FAILED that says how to build it */
export function loadAddon(device: Device): NativeAddon {
  const addon = loaded.get(device) ?? requireAddon(device);
  loaded.set(device, addon);
  return addon;
}

function requireAddon(device: Device): NativeAddon {
  const root = packageRoot();
  const path = addonPath(device);
  if (!existsSync(path)) {
    throw new DetinferError(
      'ENGINE_FAILED',
      `The native engine for --device ${device} is not built: ${path} is missing. Build it with \`npm run build\` in ` +
        `${root}; ${NEEDS[device]}.`,
    );
  }
  try {
    return createRequire(import.meta.url)(path) as NativeAddon;
  } catch (error) {
    throw new DetinferError(
      'ENGINE_FAILED',
      `The native engine ${path} does not load: ${(error as Error).message}. It was perhaps built for another ` +
        `Node.js or machine; build it again with \`npm run build\` in ${root}; ${NEEDS[device]}.`,
      { cause: error },
    );
  }
}
