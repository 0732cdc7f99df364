import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { NUMERIC_CONTRACT } from '../../../lib/protocol/contract.js';
import { PACKAGE_ROOT, PACKAGE_VERSION } from '../../../lib/cli/package.js';
import { FLAG_LIST, GROUPS } from '../../../lib/cli/server-flags.js';

function detinfer(...argv: string[]): { code: number | null; stdout: string; stderr: string } {
  const child = spawnSync(process.execPath, [join(PACKAGE_ROOT, 'bin', 'detinfer.js'), ...argv], {
    encoding: 'utf8',
    // A server that starts where an error was expected must not run for ever.
    timeout: 50_000,
    env: { ...process.env, NO_COLOR: '1', FORCE_COLOR: '0', COLUMNS: '120', HF_HUB_OFFLINE: '1', HF_HUB_CACHE: '/nonexistent' },
  });
  return { code: child.status, stdout: child.stdout, stderr: child.stderr };
}

describe('detinfer', () => {
  test('--version names the package and the numeric contract', () => {
    expect(detinfer('--version')).toEqual({
      code: 0,
      stdout: `detinfer ${PACKAGE_VERSION} (${NUMERIC_CONTRACT})\n`,
      stderr: '',
    });
  });

  test('the contract is that of the native engine', () => {
    const header = readFileSync(join(PACKAGE_ROOT, 'cuda', 'core', 'numerics.h'), 'utf8');
    expect(/kNumericContract = "([^"]+)"/.exec(header)?.[1]).toBe(NUMERIC_CONTRACT);
  });

  test('--help lists all commands, and the help of each is there however it is asked for', () => {
    const { stdout } = detinfer('--help');
    for (const name of ['launch', 'download', 'test|test-deterministic', 'verify', 'bench']) {
      expect(stdout).toMatch(new RegExp(`^  ${name.replace('|', '\\|')} `, 'm'));
    }
    expect(detinfer('help', 'download').stdout).toContain('--revision <name>');
    expect(detinfer('test-deterministic', '--help').stdout).toContain('--test-mode <mode>');
    expect(detinfer('bench', 'serving', '--help').stdout).toContain('--num-prompts <n>');
  });

  test('launch --help lists every flag under its group', () => {
    const { code, stdout } = detinfer('launch', '--help');
    expect(code).toBe(0);
    let group = '';
    const groups = new Map<string, string>();
    for (const line of stdout.split('\n')) {
      if (/^\S.*:$/.test(line)) group = line.slice(0, -1);
      for (const [name] of line.matchAll(/^ {2}.*?(--[a-z-]+)(?= <| {2}|$)/g)) groups.set(name.trim().split(', ').pop() ?? '', group);
    }
    expect(GROUPS.every((name) => stdout.includes(`${name}:`))).toBe(true);
    for (const flag of FLAG_LIST) expect([flag.name, groups.get(flag.name)]).toEqual([flag.name, flag.group]);
  });

  test.each([
    [['launch', '--prot', '1'], 'INVALID_FLAG', 'unknown flag --prot. Did you mean --port?'],
    [['launch', '--no-such-thing-at-all'], 'INVALID_FLAG', 'unknown flag --no-such-thing-at-all.'],
    [['launch', 'extra'], 'INVALID_FLAG', 'too many arguments'],
    [['launch', '--port'], 'INVALID_FLAG', 'argument missing'],
    [['launch', '--api-key', 'secret', '--port', 'x'], 'INVALID_FLAG', '--port needs a whole number'],
    [['launch', '--download-dir', 'secret'], 'UNSUPPORTED', 'set HF_HUB_CACHE to move it'],
    [['launch', '--speculative-algorithm=EAGLE'], 'UNSUPPORTED', '--speculative-algorithm: a flag of SGLang'],
    [['launch', '--model-path', 'Qwen/Qwen3-8B', '--port', '0'], 'DOWNLOAD_FAILED', 'HF_HUB_OFFLINE is set'],
    [['launch', '--revision', 'v1', '--port', '0'], 'INVALID_FLAG', '--revision is for a model of the hub'],
    [['launch', '--model-path', 'models/demo', '--revision', 'v1', '--port', '0'], 'INVALID_FLAG', 'is a local folder'],
    [['download', 'Qwen/Qwen3-8B'], 'DOWNLOAD_FAILED', 'HF_HUB_OFFLINE is set'],
    [['download', './Qwen'], 'INVALID_FLAG', "'./Qwen' is no name of a model on the hub"],
    [['download'], 'INVALID_FLAG', 'missing required argument'],
    [['launch', '--model-path', '/nonexistent', '--port', '0'], 'INVALID_MODEL', '/nonexistent'],
    [['launch', '--context-length', '100000', '--port', '0'], 'INVALID_FLAG', 'at most 4096 tokens'],
    [['launch', '--device', 'cuda', '--page-size', '48'], 'INVALID_FLAG', '--page-size 48: on a GPU it must be 16, 32'],
    [['lunch'], 'INVALID_FLAG', "unknown command 'lunch'"],
  ])('%j ends with one line: %s', (argv, code, message) => {
    const result = detinfer(...argv);
    expect(result).toMatchObject({ code: 1, stdout: '' });
    expect(result.stderr).toMatch(/^error [A-Z_]+: [^\n]+\n$/);
    expect(result.stderr).toContain(`error ${code}: `);
    expect(result.stderr).toContain(message);
    expect(result.stderr).not.toContain('secret');
  });

  test('--device cuda without such a GPU ends with one line that says what is missing', () => {
    // Whatever this machine has, it does not have so many GPUs.
    const result = detinfer('launch', '--device', 'cuda', '--base-gpu-id', '1000', '--port', '0');
    expect(result).toMatchObject({ code: 1, stdout: '' });
    expect(result.stderr).toMatch(
      /^error (ENGINE_FAILED: The native engine for --device cuda is not built|UNSUPPORTED: --device cuda|INVALID_FLAG: --base-gpu-id 1000)[^\n]+\n$/,
    );
  });
});
