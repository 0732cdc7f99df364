import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

import type { Device } from '../protocol/server-args.js';

/** Where the addon for a device is, once it is built. */
export function addonPath(device: Device): string {
  return join(packageRoot(), 'build', 'Release', `detinfer_${device}.node`);
}

/** The folder that holds package.json: this file runs from dist/lib/engine. */
export function packageRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, 'package.json')) && dirname(folder) !== folder) folder = dirname(folder);
  return folder;
}
