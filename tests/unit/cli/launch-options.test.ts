import { describe, expect, test } from '@jest/globals';
import { Command } from 'commander';
import { addLaunchOptions, type LaunchOptions } from '../../../lib/cli/launch-options.js';
import { FLAG_LIST } from '../../../lib/cli/server-flags.js';
import { DetinferError } from '../../../lib/protocol/errors.js';

function parse(...argv: string[]): LaunchOptions {
  const command = new Command('launch').exitOverride().configureOutput({ outputError: () => {} });
  const read = addLaunchOptions(command, '/models/demo');
  command.parse(argv, { from: 'user' });
  return read(() => ({ device: 'cpu', note: null }));
}

function refusal(...argv: string[]): DetinferError {
  try {
    parse(...argv);
  } catch (error) {
    if (error instanceof DetinferError) return error;
    throw error;
  }
  throw new Error(`${argv.join(' ')} was taken`);
}

describe('launch flags', () => {
  test('have the documented defaults', () => {
    const { args, notes } = parse();
    expect(args).toMatchObject({
      modelPath: '/models/demo',
      tokenizerPath: '/models/demo',
      servedModelName: 'detinfer-demo',
      isDemoModel: true,
      host: '127.0.0.1',
      port: 30000,
      device: 'cpu',
      attentionBackend: 'fa3',
      chunkedPrefillSize: 256,
      maxPrefillTokens: 16384,
      maxRunningRequests: 256,
      maxTotalTokens: null,
      pageSize: 16,
      memFractionStatic: 0.85,
      enableDeterministicInference: false,
      weightVersion: 'default',
    });
    expect(notes).toEqual([]);
  });

  test('have defaults of their own on a GPU', () => {
    expect(parse('--device', 'cuda').args).toMatchObject({
      device: 'cuda',
      chunkedPrefillSize: 8192,
      pageSize: 128,
      memFractionStatic: 0.88,
      cudaGraphMaxBs: null,
      disableCudaGraph: false,
      disableOverlapSchedule: false,
      baseGpuId: 0,
    });
    expect(parse('--device', 'cuda', '--page-size', '64').args.pageSize).toBe(64);
  });

  test('fill every field of the server arguments', () => {
    const { args } = parse();
    expect(Object.keys(args).sort()).toEqual([...FLAG_LIST.map((flag) => flag.key), 'isDemoModel'].sort());
    expect(Object.values(args)).not.toContain(undefined);
  });

  test('take their names from the model path', () => {
    const { args } = parse('--model', '/m/x');
    expect(args).toMatchObject({ modelPath: '/m/x', tokenizerPath: '/m/x', servedModelName: '/m/x', isDemoModel: false });
    expect(parse('--model-path', 'a/b', '--revision', 'v1').args).toMatchObject({ modelPath: 'a/b', revision: 'v1' });
    const named = parse('--model-path=/m/x', '--tokenizer-path', '/t', '--served-model-name', 'mine').args;
    expect(named).toMatchObject({ modelPath: '/m/x', tokenizerPath: '/t', servedModelName: 'mine' });
  });

  test('convert values and switches', () => {
    const { args } = parse(
      ...['--port', '0', '--chunked-prefill-size', '-1', '--mem-fraction-static', '.5', '--context-length', '128'],
      ...['--dp', '4', '--json-model-override-args', '{"a":1}', '--attention-backend', 'triton', '--page-size', '64', '--log-requests'],
    );
    expect(args).toMatchObject({
      port: 0,
      chunkedPrefillSize: -1,
      memFractionStatic: 0.5,
      contextLength: 128,
      jsonModelOverrideArgs: '{"a":1}',
      attentionBackend: 'triton',
      pageSize: 64,
      dpSize: 4,
      logRequests: true,
    });
  });

  test.each([
    [['--port', 'abc'], /--port needs a whole number from 0 up to 65535, not 'abc'/],
    [['--port', '65536'], /--port needs a whole number/],
    [['--port', '-1'], /--port needs a whole number/],
    [['--port', '3e4'], /--port needs a whole number/],
    [['--port', '0x10'], /--port needs a whole number/],
    [['--port', ''], /--port needs a whole number/],
    [['--chunked-prefill-size', '0'], /--chunked-prefill-size needs a whole number from 1 or -1/],
    [['--mem-fraction-static', '0'], /--mem-fraction-static needs a number above 0 up to 1/],
    [['--mem-fraction-static', '1.1'], /--mem-fraction-static needs a number/],
    [['--mem-fraction-static', 'Infinity'], /--mem-fraction-static needs a number/],
    [['--page-size', '24'], /--page-size needs a multiple of 16/],
    [['--random-seed', '9007199254740993'], /--random-seed needs a whole number/],
    [['--attention-backend', 'fa2'], /--attention-backend takes fa3 \| flashinfer \| triton, not 'fa2'/],
    [['--dtype', 'float16'], /--dtype takes auto \| bfloat16/],
    [['--json-model-override-args', '[1]'], /--json-model-override-args needs a JSON object/],
    [['--json-model-override-args', '{'], /--json-model-override-args needs a JSON object: /],
    [['--host', ''], /--host needs a value/],
    [['--host', '--port'], /--host needs a value, not '--port'/],
    [['--device', 'tpu'], /--device takes cpu \| cuda, not 'tpu'/],
    [['--port', '1', '--port', '2'], /--port is given twice/],
    [['--log-requests', '--log-requests'], /--log-requests is given twice/],
    [['--model', '/a', '--model-path', '/b'], /--model-path is given twice/],
    [['--dp', '2', '--data-parallel-size', '2'], /--data-parallel-size is given twice/],
    [['--dp-size', '0'], /--dp-size needs a whole number from 1 up to 64/],
    [['--max-running-requests', '4294967297'], /--max-running-requests needs a whole number from 1 up to 1000000/],
  ])('refuse %j', (argv, message) => {
    const error = refusal(...argv);
    expect(error.code).toBe('INVALID_FLAG');
    expect(error.message).toMatch(message);
  });

  test('say what is not supported', () => {
    expect(refusal('--tp-size', '2')).toMatchObject({ code: 'UNSUPPORTED', message: /--tp-size 2/ });
    expect(refusal('--tp', '1', '--tensor-parallel-size', '1').message).toMatch(/given twice/);
  });

  test('note what changes nothing', () => {
    const { notes } = parse('--tp', '1', '--disable-cuda-graph', '--sampling-backend', 'pytorch', '--enable-memory-saver');
    expect(notes).toEqual([
      expect.stringMatching(/^--tp 1: /),
      expect.stringMatching(/^--sampling-backend pytorch: no effect/),
      expect.stringMatching(/^--enable-memory-saver: no effect/),
      '--disable-cuda-graph: no effect on a CPU',
    ]);
    expect(parse('--device', 'cuda', '--disable-cuda-graph').notes).toEqual([]);
  });
});
