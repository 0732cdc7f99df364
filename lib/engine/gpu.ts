import { DetinferError } from '../protocol/errors.js';
import type { NativeAddon } from './native.js';

/**
 * Checks that the GPU of the given index is there and can be used.
 * @throws DetinferError UNSUPPORTED when no GPU can be, INVALID_FLAG when just this one can't
 */
export function checkGpu(addon: Pick<NativeAddon, 'deviceNames'>, index: number): void {
  const names = deviceNames(addon);
  if (names.length === 0) throw unusableGpu('no NVIDIA GPU of the Hopper generation (H100, H200) was found');
  if (index < names.length) return;
  const list = names.map((name, i) => `${i}: ${name}`).join(', ');
  throw new DetinferError('INVALID_FLAG', `--base-gpu-id ${index}: there is no such GPU here. Choose from ${list}.`);
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
