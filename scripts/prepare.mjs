// Brings a clone to the point where detinfer runs: dependencies as package-lock.json says, then a build. Quick when there
// is nothing to do. Only Node's own modules may be used here, since this runs before anything is installed.
import { spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));

/** Installs and builds; throws when a step fails. */
export async function prepare() {
  if (!installedAsLocked()) {
    console.log('Installing dependencies (npm ci) …');
    // The package's own install script would build the addon out of sight; the build below shows what it does.
    await must('npm', ['ci', '--ignore-scripts', '--no-audit', '--no-fund']);
  }
  await must(process.execPath, [join('scripts', 'build.mjs')]);
}

/** Runs a command in the project's folder, with the terminal as its own, and resolves to its exit code. */
export function runCommand(command, args, options = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { cwd: ROOT, stdio: 'inherit', ...options });
    child.on('error', reject);
    child.on('exit', (code, signal) => resolve(code ?? (signal === 'SIGINT' ? 130 : 1)));
  });
}

async function must(command, args) {
  const code = await runCommand(command, args);
  if (code !== 0) throw new Error(`${[command, ...args].join(' ')} failed with exit code ${code}`);
}

/** Whether node_modules holds every package of package-lock.json in its version. */
function installedAsLocked() {
  const installed = readPackages(join(ROOT, 'node_modules', '.package-lock.json'));
  const locked = readPackages(join(ROOT, 'package-lock.json'));
  return Object.entries(locked).every(
    // Optional packages may be for other platforms; the root entry is the project itself.
    ([path, entry]) => path === '' || entry.optional || installed[path]?.version === entry.version,
  );
}

function readPackages(path) {
  return existsSync(path) ? JSON.parse(readFileSync(path, 'utf8')).packages : {};
}
