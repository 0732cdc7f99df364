import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';

import { DetinferError } from '../protocol/errors.js';
import { PACKAGE_ROOT } from './package-root.js';

export interface AddonEntry {
  /** Of the file: detinfer_NAME.node. */
  name: string;
  /** What errors call it. */
  title: string;
  /** What building it needs. */
  needs: string;
}

/** What building an addon for the CPU needs. */
export const COMPILER = 'that needs g++, make and python3 (Debian: apt-get install g++ make python3)';

/** Where an addon is, once it is built. */
export function addonPath(name: string): string {
  return join(PACKAGE_ROOT, 'build', 'Release', `detinfer_${name}.node`);
}

/** Loads an addon. @throws DetinferError ENGINE_FAILED that says how to build it */
export function requireAddon<T>({ name, title, needs }: AddonEntry): T {
  const path = addonPath(name);
  if (!existsSync(path)) {
    throw new DetinferError(
      'ENGINE_FAILED',
      `${title} is not built: ${path} is missing. Build it with \`npm run build\` in ${PACKAGE_ROOT}; ${needs}.`,
    );
  }
  try {
    return createRequire(import.meta.url)(path) as T;
  } catch (error) {
    throw new DetinferError(
      'ENGINE_FAILED',
      `${title} (${path}) does not load: ${(error as Error).message}. It was perhaps built for another ` +
        `Node.js or machine; build it again with \`npm run build\` in ${PACKAGE_ROOT}; ${needs}.`,
      { cause: error },
    );
  }
}
