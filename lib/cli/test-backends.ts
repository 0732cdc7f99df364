import { chooseDevice } from '../engine/probe.js';
import { DetinferError } from '../protocol/errors.js';
import { ATTENTION_BACKENDS } from '../protocol/server-args.js';
import { BackendComparison } from '../verify/backends.js';
import type { Progress } from '../verify/progress.js';
import { BACKENDS_MODE, type TestOptions, type TestReport } from '../verify/types.js';
import { withTarget, type TargetOptions } from './target.js';

/** What --backends names: the backends of the device, and the CPU beside a GPU's. */
export const COMPARABLE = [...ATTENTION_BACKENDS, 'cpu'] as const;
export type Comparable = (typeof COMPARABLE)[number];

interface Flags extends TargetOptions {
  backends?: Comparable[];
  urls?: string[];
}

/**
 * Compares running servers, or those that it launches one after another: two do not share a GPU's memory.
 * @throws DetinferError INVALID_FLAG where there is nothing to compare.
 */
export async function compareBackends(
  flags: Flags,
  launchFlags: string[],
  options: TestOptions,
  progress: Progress,
): Promise<TestReport> {
  const comparison = new BackendComparison(options, progress);
  const onSignal = (): void => progress.stop();
  for (const { name, target, launch } of targets(flags, launchFlags)) {
    await withTarget(target, launch, onSignal, ({ url, apiKey }) => comparison.ask(name, url, apiKey));
  }
  return comparison.report();
}

interface NamedTarget {
  name: string | null;
  target: TargetOptions;
  launch: string[];
}

function targets({ urls, backends, ...flags }: Flags, launchFlags: string[]): NamedTarget[] {
  if (urls !== undefined) {
    if (urls.length < 2) throw nothingToCompare(`--urls names one server`);
    return urls.map((url) => ({ name: null, target: { ...flags, url }, launch: launchFlags }));
  }
  if (flags.modelPath === undefined) {
    throw nothingToCompare('pass --model-path to have a server launched for each backend, or --urls of running ones');
  }
  const names: readonly Comparable[] = backends ?? ATTENTION_BACKENDS;
  if (names.length < 2) throw nothingToCompare(`--backends names one`);
  const device = flags.device ?? chooseDevice().device;
  return names.map((name) =>
    name === 'cpu'
      ? { name, target: { ...flags, device: 'cpu' }, launch: launchFlags }
      : { name: `${name} (${device})`, target: { ...flags, device, attentionBackend: name }, launch: launchFlags },
  );
}

function nothingToCompare(what: string): DetinferError {
  return new DetinferError('INVALID_FLAG', `--test-mode ${BACKENDS_MODE}: ${what}`);
}
