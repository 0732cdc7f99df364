import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { DetinferError } from '../protocol/errors.js';
import type { NativeAddon } from './native.js';

const ADDON = join('build', 'Release', 'detinfer_cpu.node');

let loaded: NativeAddon | undefined;

/** Loads the native engine. @throws DetinferError ENGINE_FAILED that says how to build it */
export function loadAddon(): NativeAddon {
  loaded ??= requireAddon();
  return loaded;
}

function requireAddon(): NativeAddon {
  const root = packageRoot();
  const path = join(root, ADDON);
  if (!existsSync(path)) {
    throw new DetinferError(
      'ENGINE_FAILED',
      `The native engine is not built: ${path} is missing. Build it with \`npm run build\` in ${root}; ` +
        'that needs g++, make and python3 (Debian: apt-get install g++ make python3).',
    );
  }
  try {
    return createRequire(import.meta.url)(path) as NativeAddon;
  } catch (error) {
    throw new DetinferError(
      'ENGINE_FAILED',
      `The native engine ${path} does not load: ${(error as Error).message}. It was perhaps built for another ` +
        `Node.js or machine; build it again with \`npm run build\` in ${root}.`,
      { cause: error },
    );
  }
}

/** The folder that holds package.json: this file runs from dist/lib/engine. */
function packageRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, 'package.json')) && dirname(folder) !== folder) folder = dirname(folder);
  return folder;
}
