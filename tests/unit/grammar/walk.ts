import type { GrammarSpec } from '../../../lib/protocol/sampling.js';
import { compileGrammar } from '../../../lib/grammar/compile.js';
import { Machine, type State } from '../../../lib/grammar/machine.js';

/** A machine for a grammar that knows nothing yet. */
export function machineFor(kind: GrammarSpec['kind'], grammar: string | object): Machine {
  const text = typeof grammar === 'string' ? grammar : JSON.stringify(grammar);
  return new Machine(compileGrammar({ kind, text }));
}

/** The state after some bytes, or null where the grammar does not allow them. */
export function after(machine: Machine, state: State | null, bytes: Iterable<number>): State | null {
  let next = state;
  for (const byte of bytes) next = next && machine.step(next, byte);
  return next;
}

export function accepts(machine: Machine, text: string): boolean {
  return after(machine, machine.start, Buffer.from(text))?.isAccepting ?? false;
}

/** What ends most things soon, best first. */
const ENDING = Buffer.from('"}]null:true0123456789');

/** A text of the grammar, drawn byte by byte; past `softLimit` bytes mostly by what leads to an end. */
export function randomText(machine: Machine, random: () => number, softLimit = 40): string {
  const bytes: number[] = [];
  let state = machine.start;
  for (;;) {
    const isLong = bytes.length >= softLimit;
    if (state.isAccepting && (isLong || random() < 0.1)) break;
    const byte = isLong && random() < 0.5 ? ENDING.find((end) => machine.step(state, end) !== null) : undefined;
    const next = byte ?? anyByte(machine, state, random);
    if (next === null) break;
    bytes.push(next);
    state = machine.step(state, next)!;
  }
  return Buffer.from(bytes).toString();
}

/** A byte that may follow, null where none may. */
function anyByte(machine: Machine, state: State, random: () => number): number | null {
  const first = Math.floor(random() * 256);
  for (let i = 0; i < 256; ++i) {
    // Through all bytes in a scattered order.
    const byte = (first + i * 149) % 256;
    if (machine.step(state, byte) !== null) return byte;
  }
  return null;
}

/** A pseudo-random number generator in [0, 1). */
export function randomFrom(seed: number): () => number {
  let state = seed | 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
}
