import type { Device } from '../protocol/server-args.js';
import { COMPILER, requireAddon } from '../system/addon.js';
import type { NativeAddon } from './native.js';

/** What building each addon needs. */
const NEEDS: Record<Device, string> = {
  cpu: COMPILER,
  cuda: 'that needs the CUDA toolkit (nvcc 12.3 or newer) beside g++, make and python3; or run on the CPU with --device cpu',
};

const loaded = new Map<Device, NativeAddon>();

/** Loads the native engine for a device. @throws DetinferError ENGINE_FAILED that says how to build it */
export function loadAddon(device: Device): NativeAddon {
  const title = `The native engine for --device ${device}`;
  const addon = loaded.get(device) ?? requireAddon<NativeAddon>({ name: device, title, needs: NEEDS[device] });
  loaded.set(device, addon);
  return addon;
}
