#!/usr/bin/env node
// npm test [-- names of suites]: installs, builds and runs every test, then prints one line with the sum of all suites.
// Exit code 0 only if every suite ran and nothing failed.
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ROOT, prepare, runCommand } from './prepare.mjs';

const scratch = mkdtempSync(join(tmpdir(), 'detinfer-test-'));

/** Each suite resolves to the number of tests that passed and failed. */
const SUITES = {
  native: () => counted(join(ROOT, 'build', 'Release', 'detinfer_native_tests')),
  layers: () => oneCheck('check-layers.mjs'),
  docs: () => oneCheck('check-docs.mjs'),
  unit: () => jest('unit', ['dist/tests/unit']),
  accuracy: () => jest('accuracy', ['dist/tests/accuracy']),
  determinism: () => jest('determinism', ['dist/tests/determinism']),
  golden: () => jest('golden', ['dist/tests/golden']),
  e2e: () => jest('e2e', ['dist/tests/e2e']),
};

/** A script of this folder is one test. */
async function oneCheck(script) {
  const code = await runCommand(process.execPath, [join(ROOT, 'scripts', script)]);
  return code === 0 ? { passed: 1, failed: 0 } : { passed: 0, failed: 1 };
}

/** A program whose output ends with "N passed, N failed". */
async function counted(program) {
  const { code, output } = await capture(program, []);
  const [, passed, failed] = /(\d+) passed, (\d+) failed\s*$/.exec(output) ?? [];
  if (passed === undefined) throw new Error(`${program} did not end with a line of counts (exit code ${code})`);
  // A crash after the last test must not pass for success.
  return { passed: Number(passed), failed: Number(failed) + (code !== 0 && Number(failed) === 0 ? 1 : 0) };
}

async function jest(name, paths) {
  const report = join(scratch, `${name}.json`);
  const args = ['--experimental-vm-modules', '--no-warnings', join('node_modules', 'jest', 'bin', 'jest.js')];
  await runCommand(process.execPath, [...args, ...paths, '--maxWorkers=2', '--json', `--outputFile=${report}`], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  const result = JSON.parse(readFileSync(report, 'utf8'));
  // A file that does not even load has no tests of its own to fail; a test that was skipped did not pass.
  const failed = result.numFailedTests + result.numRuntimeErrorTestSuites + result.numPendingTests;
  if (result.numTotalTests === 0) throw new Error(`no tests found in ${paths.join(', ')}`);
  return { passed: result.numPassedTests, failed };
}

/** Runs a program, shows its output and keeps it. */
function capture(program, args) {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { cwd: ROOT, stdio: ['ignore', 'pipe', 'inherit'] });
    let output = '';
    child.stdout.on('data', (data) => {
      process.stdout.write(data);
      output += data;
    });
    child.on('error', reject);
    child.on('close', (code) => resolve({ code, output }));
  });
}

async function run(name) {
  console.log(`\n== ${name}`);
  const start = Date.now();
  const result = await SUITES[name]().catch((error) => {
    console.error(error.message);
    return { passed: 0, failed: 1 };
  });
  console.log(`${name}: ${result.passed} passed, ${result.failed} failed (${((Date.now() - start) / 1000).toFixed(1)} s)`);
  return result;
}

const names = process.argv.slice(2);
const unknown = names.find((name) => !(name in SUITES));
if (unknown !== undefined) {
  console.error(`There is no suite '${unknown}'. Suites: ${Object.keys(SUITES).join(', ')}`);
  process.exit(1);
}
try {
  await prepare();
  const sum = { passed: 0, failed: 0 };
  for (const name of names.length > 0 ? names : Object.keys(SUITES)) {
    const result = await run(name);
    sum.passed += result.passed;
    sum.failed += result.failed;
  }
  console.log(`\n${sum.passed} passed, ${sum.failed} failed`);
  process.exitCode = sum.failed === 0 ? 0 : 1;
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
