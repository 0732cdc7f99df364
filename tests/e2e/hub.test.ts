import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer, request as httpRequest } from 'node:http';
import { connect, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { DEMO_MODEL_PATH } from '../../lib/cli/package.js';
import { LocalHub } from '../local-hub.js';
import { addressOf, ctrlC, killGroup, READY, start, type Program } from './program.js';

const FILES = ['config.json', 'generation_config.json', 'model.safetensors', 'tokenizer.json', 'tokenizer_config.json'];
const root = mkdtempSync(join(tmpdir(), 'detinfer-hub-e2e-'));
const running: Program[] = [];
let hub: LocalHub;
let variables: NodeJS.ProcessEnv = {};

beforeAll(async () => {
  hub = await LocalHub.start();
  const files = Object.fromEntries(FILES.map((name) => [name, readFileSync(join(DEMO_MODEL_PATH, name))]));
  const { 'tokenizer.json': tokenizer = '', 'tokenizer_config.json': tokenizerConfig = '', ...model } = files;
  hub.publish('org/demo', { files, refs: ['v1'], access: 'gated' });
  hub.publish('org/no-tokenizer', { files: model });
  hub.publish('org/tokenizer', { files: { 'tokenizer.json': tokenizer, 'tokenizer_config.json': tokenizerConfig } });
});

beforeEach(() => {
  hub.requests.length = 0;
  variables = { HF_ENDPOINT: hub.endpoint, HF_HOME: join(root, 'home'), HF_TOKEN: hub.token };
});

afterEach(async () => {
  running.forEach(killGroup);
  await Promise.all(running.splice(0).map((program) => program.ended));
});

afterAll(async () => {
  await hub.stop();
  rmSync(root, { recursive: true, force: true });
});

function detinfer(...args: string[]): Program {
  const env = Object.entries(variables).map(([name, value]) => `${name}=${value}`);
  const program = start('env', [...env, process.execPath, 'bin/detinfer.js', ...args]);
  running.push(program);
  return program;
}

async function answerOf(...flags: string[]): Promise<{ text: string; info: Record<string, unknown> }> {
  const program = detinfer('launch', '--port', '0', '--threads', '1', ...flags);
  await program.until(READY);
  const response = await fetch(`${addressOf(program)}/generate`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ text: '2 + 3 =', sampling_params: { temperature: 0, max_new_tokens: 2 } }),
  });
  const { text } = (await response.json()) as { text: string };
  const info = (await (await fetch(`${addressOf(program)}/model_info`)).json()) as Record<string, unknown>;
  ctrlC(program);
  await program.ended;
  return { text, info };
}

describe('a model of the hub', () => {
  test('is downloaded and served under its name, and without a network the next time', async () => {
    const first = await answerOf('--model-path', 'org/demo', '--revision', 'v1');
    expect(first.text).toBe(' 5');
    expect(first.info).toMatchObject({ model_path: 'org/demo', tokenizer_path: 'org/demo' });
    variables = { ...variables, HF_HUB_OFFLINE: '1' };
    hub.requests.length = 0;
    expect((await answerOf('--model-path', 'org/demo', '--revision', 'v1')).text).toBe(' 5');
    expect(hub.requests).toEqual([]);
  });

  test('can take its tokenizer from another repository', async () => {
    const { text, info } = await answerOf('--model-path', 'org/no-tokenizer', '--tokenizer-path', 'org/tokenizer');
    expect(text).toBe(' 5');
    expect(info).toMatchObject({ model_path: 'org/no-tokenizer', tokenizer_path: 'org/tokenizer' });
  });

  test('that is gated ends the start with one error', async () => {
    const { HF_TOKEN: _, ...others } = variables;
    variables = { ...others, HF_HOME: join(root, 'other home') };
    const program = detinfer('launch', '--port', '0', '--model-path', 'org/demo');
    expect(await program.ended).toBe(1);
    expect(program.output()).toMatch(
      /^error ACCESS_DENIED: org\/demo is gated: ask for access at .*; set HF_TOKEN [^\n]*\n$/,
    );
  });

  test('is downloaded by the commands that launch a server of their own or run the engine', async () => {
    variables = { ...variables, HF_HOME: join(root, 'third home') };
    const own = detinfer(
      'test',
      '--model-path',
      'org/demo',
      '--n-trials',
      '2',
      '--max-new-tokens',
      '4',
      '--no-progress',
    );
    expect([await own.ended, own.output()]).toEqual([
      0,
      expect.stringMatching(/Downloaded 14\.\d MB[^]*Unique samples: 1/),
    ]);
    hub.requests.length = 0;
    const bench = detinfer('bench', 'decode', '--model-path', 'org/demo', '--new-tokens', '4', '--rounds', '1');
    expect([await bench.ended, bench.output()]).toEqual([0, expect.stringMatching(/Model +org\/demo/)]);
    expect(hub.requests.filter(({ at }) => at === 'cdn')).toEqual([]);
  });

  test('comes through the proxy that HTTP_PROXY names, unless NO_PROXY excepts it', async () => {
    let tunnels = 0;
    const proxy = createServer((incoming, outgoing) => {
      tunnels += 1;
      const onward = httpRequest(
        incoming.url ?? '',
        { method: incoming.method, headers: incoming.headers },
        (answer) => {
          outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
          answer.pipe(outgoing);
        },
      );
      incoming.pipe(onward);
    });
    proxy.on('connect', (request, socket) => {
      tunnels += 1;
      const [host = '', port = ''] = (request.url ?? '').split(':');
      const onward = connect(Number(port), host, () => {
        socket.write('HTTP/1.1 200 Connection established\r\n\r\n');
        onward.pipe(socket).pipe(onward);
      });
      for (const end of [socket, onward]) end.on('error', () => end.destroy());
    });
    await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve));
    try {
      const address = `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`;
      variables = {
        ...variables,
        HF_HOME: join(root, 'fourth home'),
        HTTP_PROXY: address,
        http_proxy: address,
        NO_PROXY: '',
      };
      variables.no_proxy = '';
      expect(await detinfer('download', 'org/demo').ended).toBe(0);
      expect(tunnels).toBeGreaterThan(0);
      const before = tunnels;
      variables = {
        ...variables,
        HF_HOME: join(root, 'fifth home'),
        NO_PROXY: '127.0.0.1,localhost',
        no_proxy: '127.0.0.1,localhost',
      };
      expect(await detinfer('download', 'org/demo').ended).toBe(0);
      expect(tunnels).toBe(before);
    } finally {
      proxy.closeAllConnections();
      proxy.close();
    }
  });
});
