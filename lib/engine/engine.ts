import { availableParallelism } from 'node:os';

import { DetinferError, ERRORS, type ErrorCode } from '../protocol/errors.js';
import type { EngineInfo } from '../protocol/messages.js';
import { checkGpus } from './gpu.js';
import { checkDeviceWeights, devicePages, freeBytes, hostPages, type KvDemand } from './kv-budget.js';
import { loadAddon } from './load-addon.js';
import { readModelFolder } from './model-folder.js';
import type { NativeAddon, NativeEngine, NativeOptions } from './native.js';
import { checkContextLength, checkOptions, graphMaxBatch, stepTokens, type EngineOptions } from './options.js';
import { toResults } from './results.js';
import { readWeightTables } from './safetensors.js';
import { StepWriter } from './step-writer.js';
import type { Engine, ForwardSlice, SliceResult } from './types.js';

export type { EngineOptions } from './options.js';

/**
 * Loads a model. @param onProgress gets bytes of weights done and in all. @param addon stands in for the device's own,
 * in tests.
 * @throws DetinferError INVALID_MODEL, INVALID_WEIGHTS, UNSUPPORTED, INVALID_FLAG, OUT_OF_MEMORY, ENGINE_FAILED
 */
export function loadEngine(
  options: EngineOptions,
  onProgress: (done: number, total: number) => void,
  addon?: NativeAddon,
): AddonEngine {
  checkOptions(options);
  return load(options, onProgress, addon ?? loadAddon(options.device));
}

function load(
  options: EngineOptions,
  onProgress: (done: number, total: number) => void,
  addon: NativeAddon,
): AddonEngine {
  const { device } = options;
  const folder = readModelFolder(options.modelPath, options.jsonModelOverrideArgs);
  const contextLength = options.contextLength ?? folder.contextLength;
  checkContextLength(contextLength, folder.contextLength);
  return typedErrors(() => {
    if (device === 'cuda') checkGpus(addon, options.baseGpuId);
    const native = new addon.NativeEngine({
      config: folder.config,
      threads: options.threads ?? availableParallelism(),
      weights: options.loadFormat === 'dummy' ? null : readWeightTables(folder.path),
      ...(device === 'cuda' && { cuda: cudaOptions(options) }),
    });
    const facts = native.facts();
    const demand: KvDemand = {
      weightBytes: facts.weightBytes,
      bytesPerToken: facts.kvBytesPerToken,
      pageSize: options.pageSize,
      maxTotalTokens: options.maxTotalTokens,
      memFractionStatic: options.memFractionStatic,
    };
    const memory = native.deviceMemory();
    if (memory !== null) checkDeviceWeights(demand, memory);
    // Host memory that weights take is not always seen to be taken, so it is budgeted before they are loaded.
    const pagesOfHost = memory === null ? hostPages(demand, freeBytes()) : null;
    const weightBytesPerToken = native.load(onProgress);
    native.reserve(stepTokens(options, contextLength), options.maxRunningRequests);
    const pages = pagesOfHost ?? devicePages(demand, native.deviceMemory()!);
    native.allocateCache(options.pageSize, pages, contextLength);
    const maxTotalTokens = pages * options.pageSize;
    return new AddonEngine(addon, native, {
      numericContract: addon.numericContract,
      modelType: folder.modelType,
      architectures: folder.architectures,
      device,
      deviceName: facts.deviceName,
      dtype: 'bfloat16',
      attentionBackend: options.attentionBackend,
      vocabSize: facts.vocabSize,
      contextLength,
      pageSize: options.pageSize,
      maxTotalTokens,
      maxRunningRequests: options.maxRunningRequests,
      chunkedPrefillSize: options.chunkedPrefillSize,
      weightBytes: facts.weightBytes,
      weightBytesPerToken,
      kvBytesPerToken: facts.kvBytesPerToken,
      kvBytes: maxTotalTokens * facts.kvBytesPerToken,
      threads: facts.threads,
      eosTokenIds: folder.eosTokenIds,
    });
  });
}

function cudaOptions(options: EngineOptions): NonNullable<NativeOptions['cuda']> {
  const { baseGpuId, attentionBackend } = options;
  return { device: baseGpuId, attentionBackend, graphMaxBatch: graphMaxBatch(options) };
}

/** The engine of an addon, on whichever device that addon is for. */
export class AddonEngine implements Engine {
  readonly info: EngineInfo;
  private readonly addon: NativeAddon;
  private readonly native: NativeEngine;
  private readonly writer = new StepWriter();
  private cpuMicros = 0;
  private failed = false;

  constructor(addon: NativeAddon, native: NativeEngine, info: EngineInfo) {
    this.addon = addon;
    this.native = native;
    this.info = info;
  }

  get cpuSeconds(): number {
    return this.cpuMicros / 1e6;
  }

  submit(slices: ForwardSlice[]): void {
    const step = this.writer.write(slices);
    this.guard(() => this.timed(() => this.native.submit(step)));
  }

  collect(): SliceResult[] {
    return toResults(this.guard(() => this.timed(() => this.native.collect())));
  }

  /** Logits of every scored and every drawing row, row-major; no step may be under way. For comparisons of engines. */
  logits(slices: ForwardSlice[]): Float32Array {
    return this.guard(() => this.native.logits(this.writer.write(slices)));
  }

  /** Bytes per second that the device reads from its memory, measured now. */
  measureBandwidth(): number {
    return typedErrors(() => this.addon.measureBandwidth(this.info.threads));
  }

  close(): void {
    this.failed = true;
    this.native.close();
  }

  private timed<T>(body: () => T): T {
    const before = process.cpuUsage();
    const result = body();
    const { user, system } = process.cpuUsage(before);
    this.cpuMicros += user + system;
    return result;
  }

  private guard<T>(body: () => T): T {
    if (this.failed) throw new DetinferError('ENGINE_FAILED', 'the engine has failed before; restart the server');
    try {
      return typedErrors(body);
    } catch (error) {
      // A step that was refused has changed nothing.
      this.failed = !(error instanceof DetinferError && error.code === 'INVALID_REQUEST');
      throw error;
    }
  }
}

/** Errors of the addon carry a code; they leave as DetinferError. */
function typedErrors<T>(body: () => T): T {
  try {
    return body();
  } catch (error) {
    // No instanceof: the addon's errors belong to the realm that loaded it.
    const { code, message } = error as { code?: string; message: string };
    if (error instanceof DetinferError || code === undefined || !(code in ERRORS)) throw error;
    throw new DetinferError(code as ErrorCode, message, { cause: error });
  }
}
