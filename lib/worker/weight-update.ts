import { isFolder, readModelFolder } from '../engine/model-folder.js';
import { readWeightTables } from '../engine/safetensors.js';
import { DetinferError } from '../protocol/errors.js';
import type { EngineInfo } from '../protocol/messages.js';
import type { ServerArgs } from '../protocol/server-args.js';
import type { Replica } from './replica.js';

/**
 * Whether the weights of a folder can take the place of those that are served, as far as can be told without loading
 * them. @throws DetinferError INVALID_MODEL, INVALID_WEIGHTS
 */
export function checkNewWeights(modelPath: string, served: ServerArgs, info: EngineInfo): void {
  if (!isFolder(modelPath)) {
    const message = `${modelPath} is no local folder; a model of the hub must be downloaded first`;
    throw new DetinferError('INVALID_MODEL', message);
  }
  const folder = readModelFolder(modelPath, served.jsonModelOverrideArgs);
  for (const key of ['architectures', 'modelType', 'vocabSize', 'eosTokenIds'] as const) {
    const [found, wanted] = [JSON.stringify(folder[key]), JSON.stringify(info[key])];
    if (found !== wanted) {
      throw new DetinferError('INVALID_MODEL', `${modelPath} is another model: ${key} is ${found}, not ${wanted}`);
    }
  }
  if (served.loadFormat === 'auto') checkShapes(modelPath, served.modelPath);
}

/** Tensors of the same name must have the same shape. That none is missing is for the engine to see. */
function checkShapes(modelPath: string, servedPath: string): void {
  const { tensors } = readWeightTables(modelPath);
  const shapes = new Map(readServedTensors(servedPath).map(({ name, shape }) => [name, JSON.stringify(shape)]));
  for (const { name, shape } of tensors) {
    const [found, wanted] = [JSON.stringify(shape), shapes.get(name)];
    if (wanted === undefined || found === wanted) continue;
    throw new DetinferError('INVALID_WEIGHTS', `${modelPath}: tensor ${name} is ${found}, not ${wanted}`);
  }
}

/** Trainers may have deleted the folder by now, or be about to write it again; the engine checks all shapes anyway. */
function readServedTensors(servedPath: string): { name: string; shape: number[] }[] {
  try {
    return readWeightTables(servedPath).tensors;
  } catch {
    return [];
  }
}

/**
 * Gives all replicas the weights of the folder `to`, or, when one fails, all of them those of `from` again.
 * @throws DetinferError why it failed; the old weights are served then.
 */
export async function reloadAll(replicas: Replica[], from: string, to: string, info: EngineInfo): Promise<void> {
  const results = await Promise.allSettled(replicas.map((replica) => replica.reload(to, info)));
  const failure = results.find((result) => result.status === 'rejected');
  if (failure === undefined) return;
  await Promise.all(replicas.map((replica) => replica.restore(from, info)));
  throw failure.reason;
}
