/** An engine on a GPU, as far as it goes without one: the CPU's addon stands in, and tells of memory that it is given. */
import { describe, expect, test } from '@jest/globals';

import { loadEngine, type EngineOptions } from '../../../lib/engine/engine.js';
import { checkGpus } from '../../../lib/engine/gpu.js';
import { loadAddon } from '../../../lib/engine/load-addon.js';
import type { DeviceMemory, NativeAddon, NativeEngine, NativeOptions } from '../../../lib/engine/native.js';
import { gpuProblem, readAnswer } from '../../../lib/engine/probe.js';
import { defaultOptions, forwardOne, GREEDY, load, MODEL_FOLDERS } from '../../accuracy/engine-runs.js';

const MIB = 2 ** 20;
const MODEL = MODEL_FOLDERS['qwen3-tiny']!;
const ROOMY: DeviceMemory = { total: 1000 * MIB, free: 900 * MIB };

interface StandIn {
  addon: NativeAddon;
  /** What the constructor got. */
  options: NativeOptions[];
  /** Names and numbers of the calls that allocate, in order. */
  calls: unknown[][];
}

/** @param memories answers of deviceMemory() in turn. @param collect what fails, if anything. */
function standIn(memories: DeviceMemory[], collect?: () => never): StandIn {
  const cpu = loadAddon('cpu');
  const options: NativeOptions[] = [];
  const calls: unknown[][] = [];
  const NativeEngine = function (given: NativeOptions): NativeEngine {
    options.push(given);
    const native = new cpu.NativeEngine(given);
    return {
      facts: () => ({ ...native.facts(), deviceName: 'NVIDIA H200' }),
      deviceMemory: () => memories.shift()!,
      load: (onProgress) => {
        calls.push(['load']);
        return native.load(onProgress);
      },
      reserve: (...sizes) => {
        calls.push(['reserve', ...sizes]);
        native.reserve(...sizes);
      },
      allocateCache: (...sizes) => {
        calls.push(['allocateCache', ...sizes]);
        native.allocateCache(...sizes);
      },
      submit: (slices) => native.submit(slices),
      collect: () => (collect === undefined ? native.collect() : collect()),
      logits: (slices) => native.logits(slices),
      close: () => native.close(),
    };
  } as unknown as NativeAddon['NativeEngine'];
  const facts = { deviceNames: () => ['NVIDIA H200', 'NVIDIA H200'], measureBandwidth: () => 4e12 };
  return { addon: { ...cpu, ...facts, NativeEngine }, options, calls };
}

function loadOn(gpu: StandIn, given: Partial<EngineOptions> = {}): ReturnType<typeof loadEngine> {
  const defaults = { ...defaultOptions(MODEL), device: 'cuda', pageSize: 128, maxTotalTokens: null } as const;
  return loadEngine({ ...defaults, memFractionStatic: 0.5, ...given }, () => {}, gpu.addon);
}

describe('an engine on a GPU', () => {
  test('reserves buffers for a step, then takes what the fraction of all memory leaves', () => {
    const gpu = standIn([ROOMY, { total: 1000 * MIB, free: 516 * MIB }]);
    const engine = loadOn(gpu, { maxRunningRequests: 32, maxPrefillTokens: 16384 });
    const pages = Math.floor((16 * MIB) / (128 * engine.info.kvBytesPerToken));
    expect(gpu.calls).toEqual([
      ['load'],
      ['reserve', 8192 + 32, 32],
      ['allocateCache', 128, pages, engine.info.contextLength],
    ]);
    expect(engine.info).toMatchObject({ device: 'cuda', deviceName: 'NVIDIA H200', maxTotalTokens: 128 * pages });
    expect(gpu.options[0]!.cuda).toEqual({ device: 0, attentionBackend: 'fa3', graphMaxBatch: 32 });
    expect(engine.measureBandwidth()).toBe(4e12);
    engine.close();
  });

  test('reserves no more than a step can have', () => {
    const gpu = standIn([ROOMY, ROOMY]);
    loadOn(gpu, { maxPrefillTokens: 1000, chunkedPrefillSize: 100, maxRunningRequests: 8 }).close();
    expect(gpu.calls[1]).toEqual(['reserve', 1008, 8]);
  });

  test.each<[string, Partial<EngineOptions>, number]>([
    ['256 at most', { maxRunningRequests: 500 }, 256],
    ['as --cuda-graph-max-bs says', { maxRunningRequests: 500, cudaGraphMaxBs: 300 }, 300],
    ['no more than requests that run', { maxRunningRequests: 4, cudaGraphMaxBs: 300 }, 4],
    ['none with --disable-cuda-graph', { disableCudaGraph: true, cudaGraphMaxBs: 300 }, 0],
  ])('largest batch of a CUDA graph: %s', (_, options, graphMaxBatch) => {
    const gpu = standIn([ROOMY, ROOMY]);
    loadOn(gpu, options).close();
    expect(gpu.options[0]!.cuda).toMatchObject({ graphMaxBatch });
  });

  test('refuses weights that do not fit before it loads them', () => {
    const gpu = standIn([{ total: 1000 * MIB, free: MIB / 4 }]);
    expect(() => loadOn(gpu)).toThrow(expect.objectContaining({ code: 'OUT_OF_MEMORY' }));
    expect(gpu.calls).toEqual([]);
  });

  test.each<[string, Partial<EngineOptions>, string, string]>([
    ['a page of 48', { pageSize: 48 }, 'INVALID_FLAG', '--page-size 48: on a GPU it must be 16, 32, 64'],
    ['a GPU that is not there', { baseGpuId: 2 }, 'INVALID_FLAG', 'Choose from 0: NVIDIA H200, 1: NVIDIA H200'],
  ])('refuses %s', (_, options, code, message) => {
    const gpu = standIn([ROOMY, ROOMY]);
    expect(() => loadOn(gpu, options)).toThrow(
      expect.objectContaining({ code, message: expect.stringContaining(message) }),
    );
    expect(gpu.options).toEqual([]);
  });

  test('an error of the device ends it with its message', () => {
    const gpu = standIn([ROOMY, ROOMY], () => {
      throw Object.assign(new Error('CUDA error 700: an illegal memory access'), { code: 'ENGINE_FAILED' });
    });
    const engine = loadOn(gpu);
    expect(() => forwardOne(engine, { tokens: [1, 2], sample: GREEDY })).toThrow(
      expect.objectContaining({ code: 'ENGINE_FAILED', message: 'CUDA error 700: an illegal memory access' }),
    );
    expect(() => engine.submit([])).toThrow('the engine has failed before; restart the server');
  });

  test('an engine on a CPU gets no options of a GPU', () => {
    const cpu = standIn([]);
    cpu.addon.NativeEngine = new Proxy(loadAddon('cpu').NativeEngine, {
      construct: (target, [given]: [NativeOptions]) => {
        cpu.options.push(given);
        return new target(given);
      },
    });
    loadEngine(defaultOptions(MODEL), () => {}, cpu.addon).close();
    expect(cpu.options.map((given) => Object.keys(given))).toEqual([['config', 'threads', 'weights']]);
    load(MODEL, { attentionBackend: 'triton', pageSize: 48 }).close();
  });
});

describe('checkGpus', () => {
  test('explains a driver that does not answer and a machine without a GPU', () => {
    const broken = {
      deviceNames: (): string[] => {
        throw new Error('CUDA driver version is insufficient for CUDA runtime version');
      },
    };
    expect(() => checkGpus(broken, 0)).toThrow(
      expect.objectContaining({ code: 'UNSUPPORTED', message: expect.stringMatching(/insufficient.*version 580/) }),
    );
    expect(() => checkGpus({ deviceNames: () => [] }, 0)).toThrow('no NVIDIA GPU of the Hopper generation');
  });

  test('wants one for each worker', () => {
    const two = { deviceNames: () => ['H100', 'H200'] };
    checkGpus(two, 1);
    checkGpus(two, 0, 2);
    expect(() => checkGpus(two, 2, 2)).toThrow('--base-gpu-id 2: there is no such GPU here. Choose from 0: H100, 1: H200.');
    expect(() => checkGpus(two, 0, 3)).toThrow(
      '--dp-size 3 takes a GPU for each worker, from index 0 to 2, but there are only these here: ' +
        '0: H100, 1: H200. Lower --dp-size.',
    );
    expect(() => checkGpus(two, 1, 2)).toThrow(/index 1 to 2.* Lower --dp-size or --base-gpu-id\.$/);
  });
});

describe('the probe', () => {
  test('asks in a process of its own', () => {
    // No machine has so many GPUs: what is wrong depends on what this one has.
    expect(gpuProblem(1000)).toMatchObject({
      name: 'DetinferError',
      message: expect.stringMatching(/is not built|^--device cuda: |^--base-gpu-id 1000: /),
    });
  });

  test('takes a child that ended without an answer for a broken driver', () => {
    expect(readAnswer('null', 'exit code 0')).toBeNull();
    for (const output of ['', '{"code":']) {
      expect(readAnswer(output, 'signal SIGSEGV')).toMatchObject({
        code: 'UNSUPPORTED',
        message: expect.stringContaining('signal SIGSEGV'),
      });
    }
  });
});
