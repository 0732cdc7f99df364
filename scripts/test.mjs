#!/usr/bin/env node
// npm test [-- names of suites]: installs, builds and runs every test, then prints one line with the sum of all suites.
// Exit code 0 only if every suite ran and nothing failed.
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ROOT, prepare, runCommand } from './prepare.mjs';

/** Checks that are no jest tests; each resolves to how many passed and failed. */
const CHECKS = {
  native: () => counted(join(ROOT, 'build', 'Release', 'detinfer_native_tests')),
  layers: () => oneCheck('check-layers.mjs'),
  docs: () => oneCheck('check-docs.mjs'),
};

/** Folders of tests/ that jest runs. */
const JEST_SUITES = ['unit', 'accuracy', 'determinism', 'golden', 'e2e', 'fuzz', 'nginx'];

/** Suites that need a program which not every machine has: they run where they are named, and fail without it. */
const ONLY_BY_NAME = ['nginx'];

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

/** Runs suites side by side and resolves to the counts of each. */
async function jest(suites) {
  const scratch = mkdtempSync(join(tmpdir(), 'detinfer-test-'));
  const report = join(scratch, 'jest.json');
  try {
    const node = ['--experimental-vm-modules', '--no-warnings', join('node_modules', 'jest', 'bin', 'jest.js')];
    const paths = suites.map((name) => `dist/tests/${name}/`);
    await runCommand(process.execPath, [...node, ...paths, '--maxWorkers=2', '--json', `--outputFile=${report}`], {
      stdio: ['ignore', 'ignore', 'inherit'],
    });
    const { testResults } = JSON.parse(readFileSync(report, 'utf8'));
    return suites.map((name) => [name, countTests(testResults.filter((file) => file.name.includes(`/dist/tests/${name}/`)))]);
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

/** A test that was skipped did not pass, a file that does not load counts as a failed test, and so does an empty suite. */
function countTests(files) {
  const tests = files.flatMap((file) => (file.assertionResults.length > 0 ? file.assertionResults : [file]));
  const passed = tests.filter(({ status }) => status === 'passed').length;
  return { passed, failed: Math.max(tests.length, 1) - passed };
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

function show(name, { passed, failed }, start) {
  console.log(`${name}: ${passed} passed, ${failed} failed (after ${((Date.now() - start) / 1000).toFixed(0)} s)`);
}

async function main(names) {
  const known = [...Object.keys(CHECKS), ...JEST_SUITES];
  const unknown = names.find((name) => !known.includes(name));
  if (unknown !== undefined) throw new Error(`There is no suite '${unknown}'. Suites: ${known.join(', ')}`);
  const chosen = known.filter((name) => (names.length > 0 ? names.includes(name) : !ONLY_BY_NAME.includes(name)));

  await prepare();
  const start = Date.now();
  const results = [];
  for (const name of chosen.filter((each) => each in CHECKS)) {
    console.log(`\n== ${name}`);
    const result = await CHECKS[name]().catch((error) => {
      console.error(error.message);
      return { passed: 0, failed: 1 };
    });
    show(name, result, start);
    results.push(result);
  }
  const suites = chosen.filter((name) => JEST_SUITES.includes(name));
  if (suites.length > 0) {
    console.log(`\n== ${suites.join(', ')}`);
    for (const [name, result] of await jest(suites)) {
      show(name, result, start);
      results.push(result);
    }
  }
  const [passed, failed] = ['passed', 'failed'].map((key) => results.reduce((sum, result) => sum + result[key], 0));
  console.log(`\n${passed} passed, ${failed} failed`);
  return failed === 0 ? 0 : 1;
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
}
