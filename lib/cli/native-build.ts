import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { DetinferError } from '../protocol/errors.js';
import type { Log } from '../server/context.js';
import { addonPath } from '../system/addon.js';
import { PACKAGE_ROOT } from './package.js';

/** What runs on every machine. */
const ADDONS = [addonPath('system'), addonPath('cpu')];

/**
 * Builds the addons if they are missing, as they are where a package manager does not run the install scripts of
 * dependencies. Throws DetinferError ENGINE_FAILED with what the build needs.
 */
export function ensureAddons(log: Log): void {
  if (ADDONS.every(existsSync)) return;
  log('info', 'The native engine is not built yet. Building it once; this takes a minute or two …');
  const script = join(PACKAGE_ROOT, 'scripts', 'build.mjs');
  const { status, error } = spawnSync(process.execPath, [script, '--native'], { cwd: PACKAGE_ROOT, stdio: 'inherit' });
  if (status === 0 && ADDONS.every(existsSync)) return;
  throw new DetinferError(
    'ENGINE_FAILED',
    'the native engine could not be built. It needs python3, make and g++ (Debian: apt install python3 make g++) and a ' +
      `writable ${PACKAGE_ROOT}. Try again with: node ${script} --native`,
    { cause: error },
  );
}
