#!/usr/bin/env node
// Records the digests of tests/golden. A build must be there (npm run build). Only a change of the numeric contract may
// change them: then docs/numerics.md gets a new version first.
import { writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
process.chdir(root);
const { computeDigests } = await import('../dist/tests/golden/runs.js');
const file = join('tests', 'golden', 'golden.json');
writeFileSync(file, `${JSON.stringify(computeDigests(), null, 2)}\n`);
console.log(`recorded ${file}`);
