#!/usr/bin/env node
// npm start [-- flags]: installs, builds and launches a server; without --model-path, with the demo model.
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { ROOT, prepare } from './prepare.mjs';

try {
  await prepare();
} catch (error) {
  console.error(error.message);
  process.exit(1);
}
// In this process rather than a child, so that Ctrl-C and kill reach the server itself.
const bin = join(ROOT, 'bin', 'detinfer.js');
process.argv = [process.execPath, bin, 'launch', ...process.argv.slice(2)];
await import(pathToFileURL(bin));
