import { DetinferError } from '../protocol/errors.js';
import type { NativeAddon } from './native.js';

/**
 * Checks that GPUs are there and can be used: `count` of them, one for each worker, from the index `first` on.
 * @throws DetinferError UNSUPPORTED when no GPU can be, INVALID_FLAG when just these can't
 */
export function checkGpus(addon: Pick<NativeAddon, 'deviceNames'>, first: number, count = 1): void {
  const names = deviceNames(addon);
  if (names.length === 0) throw unusableGpu('no NVIDIA GPU of the Hopper generation (H100, H200) was found');
  if (first + count <= names.length) return;
  const list = names.map((name, i) => `${i}: ${name}`).join(', ');
  if (first >= names.length) {
    throw new DetinferError('INVALID_FLAG', `--base-gpu-id ${first}: there is no such GPU here. Choose from ${list}.`);
  }
  throw new DetinferError(
    'INVALID_FLAG',
    `--dp-size ${count} takes a GPU for each worker, from index ${first} to ${first + count - 1}, but there are only ` +
      `these here: ${list}. Lower --dp-size${first > 0 ? ' or --base-gpu-id' : ''}.`,
  );
}

function deviceNames(addon: Pick<NativeAddon, 'deviceNames'>): string[] {
  try {
    return addon.deviceNames();
  } catch (error) {
    throw unusableGpu(`the CUDA driver does not work (${(error as Error).message})`, error);
  }
}

/** The error of a machine without a GPU that works. @param problem what is wrong with it. */
export function unusableGpu(problem: string, cause?: unknown): DetinferError {
  return new DetinferError(
    'UNSUPPORTED',
    `--device cuda: ${problem}. nvidia-smi must list the GPU and a driver of version 580 or newer; in a container, pass ` +
      'the GPU on (docker run --gpus all). Or run on the CPU with --device cpu.',
    { cause },
  );
}
