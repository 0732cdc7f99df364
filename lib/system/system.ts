import { COMPILER, requireAddon } from './addon.js';

/** System calls that Node lacks: the exports of cuda/system, an addon of their own that loads in a millisecond. */
export interface System {
  /**
   * Whether an open file now has the exclusive lock of flock(2), which ends when the file is closed. Never waits. Throws
   * an Error with the system's words where files can't be locked.
   * @param file descriptor
   */
  tryLock(file: number): boolean;
  /** Has the kernel kill this process when its parent dies, even while the event loop is kept busy. */
  dieWithParent(): void;
}

let loaded: System | null = null;

/** @throws DetinferError ENGINE_FAILED where it is not built */
export function system(): System {
  loaded ??= requireAddon<System>({ name: 'system', title: 'The addon for system calls', needs: COMPILER });
  return loaded;
}
