import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { PACKAGE_ROOT } from '../system/package-root.js';

export { PACKAGE_ROOT };

export const PACKAGE_VERSION = (JSON.parse(readFileSync(join(PACKAGE_ROOT, 'package.json'), 'utf8')) as { version: string })
  .version;

/** The model that is served when none is given. */
export const DEMO_MODEL_PATH = join(PACKAGE_ROOT, 'models', 'demo');
