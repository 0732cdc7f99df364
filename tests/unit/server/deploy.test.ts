import { readFileSync } from 'node:fs';

import { describe, expect, test } from '@jest/globals';
import { Command } from 'commander';

import { addLaunchOptions } from '../../../lib/cli/launch-options.js';
import { Metrics } from '../../../lib/server/metrics.js';

/** The names of all that /metrics has. */
async function metricNames(): Promise<string[]> {
  const metrics = new Metrics({ modelName: 'm', version: '1', numericContract: 'c/1', status: () => null });
  return [...(await metrics.render()).matchAll(/^# TYPE (\S+)/gm)].map(([, name]) => name!);
}

const read = (name: string): string => readFileSync(`docs/deploy/${name}`, 'utf8');

function launchArgs(argv: string[]) {
  const command = new Command('launch').exitOverride();
  const options = addLaunchOptions(command, '/models/demo');
  command.parse(argv, { from: 'user' });
  return options(() => ({ device: 'cpu', note: null })).args;
}

describe('docs/deploy', () => {
  test('the dashboard asks only for what /metrics has', async () => {
    const known = new Set(await metricNames());
    const { panels } = JSON.parse(read('grafana.json')) as { panels: { targets: { expr: string }[] }[] };
    const expressions = panels.flatMap(({ targets }) => targets.map(({ expr }) => expr));
    expect(expressions.length).toBeGreaterThan(10);
    for (const expression of expressions) {
      for (const [name] of expression.matchAll(/(?:sglang|detinfer):\w+/g)) {
        expect([expression, known.has(name.replace(/_bucket$/, ''))]).toEqual([expression, true]);
      }
    }
  });

  test('docs/operations.md lists what /metrics has', async () => {
    const table = readFileSync('docs/operations.md', 'utf8').match(/^\| `(?:sglang|detinfer):.*$/gm)!.join();
    const listed = [...table.matchAll(/`((?:sglang|detinfer):\w+)`/g)].map(([, name]) => name!);
    expect(listed.sort()).toEqual((await metricNames()).sort());
  });

  test('the image and the manifest start a server whose end fits into their grace period', () => {
    const [, entry] = /^ENTRYPOINT (.*)$/m.exec(read('Dockerfile'))!;
    const [, , command, ...fixed] = JSON.parse(entry!) as string[];
    expect(command).toBe('launch');
    const manifest = read('kubernetes.yaml');
    const [, list] = /^ +args:\n((?: +- .*\n)+)/m.exec(manifest)!;
    const given = [...list!.matchAll(/- "?(.*?)"?$/gm)].map(([, value]) => value!);
    const args = launchArgs([...fixed, ...given]);
    expect(args).toMatchObject({ host: '0.0.0.0', port: 30000, enableMetrics: true, logFormat: 'json', modelPath: '/models/model' });
    // The last of the list: all of it was read.
    expect(args.apiKey).toBe('$(DETINFER_API_KEY)');
    expect(args.threads).toBe(Number(/cpu: "(\d+)"/.exec(manifest)![1]));
    const grace = Number(/terminationGracePeriodSeconds: (\d+)/.exec(manifest)![1]);
    const pause = Number(/\["sleep", "(\d+)"\]/.exec(manifest)![1]);
    expect(grace).toBeGreaterThan(pause + args.drainTimeout + 10);
  });
});
