import type { Network } from './network.js';

/** Where a rule that ends goes on: at a node of the rule that called it, with that rule's own way back. */
interface Frame {
  id: number;
  node: number;
  stack: Stack;
}

/** All the ways back from a rule that began at one place of the text. */
interface Stack {
  id: number;
  frames: readonly Frame[];
  /** The rule is the grammar itself, so that its end may end the text. */
  isBottom: boolean;
}

/** A place within the grammar. */
interface Position {
  node: number;
  stack: Stack;
}

/** Everything that may follow a text. Equal for texts that may be continued in the same ways. */
export interface State {
  /** Positions with bytes to take. */
  readonly positions: readonly Position[];
  /** The text so far is one of the grammar. */
  readonly isAccepting: boolean;
  /** By byte: the state after it, null where no text of the grammar goes on with it, undefined while nobody asked. */
  readonly next: (State | null | undefined)[];
  /** What the user of a machine knows about the state. */
  mask: Uint32Array | null;
}

/** Beyond so many states the machine forgets what it knows and finds it again when it is needed. */
const MAX_STATES = 20_000;

/**
 * Runs a network byte by byte as a deterministic automaton, whose states are found when they are first needed. As in
 * Earley's parser, rules that begin at one place share their ways back, so ambiguous grammars stay cheap.
 */
export class Machine {
  readonly start: State;
  private frames = new Map<string, Frame>();
  private stacks = new Map<string, Stack>();
  private states = new Map<string, State>();
  private lastId = 0;

  constructor(private readonly network: Network) {
    this.start = this.startState();
  }

  /** The state after one more byte, or null. */
  step(state: State, byte: number): State | null {
    const known = state.next[byte];
    if (known !== undefined) return known;
    if (this.states.size > MAX_STATES) this.forget();
    const closure = new Closure(this.network, (frames, isBottom) => this.stackOf(frames, isBottom));
    for (const { node, stack } of state.positions) {
      for (const { low, high, to } of this.network.bytes[node]!) {
        if (byte >= low && byte <= high) closure.add(to, stack);
      }
    }
    return (state.next[byte] = this.stateOf(closure));
  }

  private startState(): State {
    const closure = new Closure(this.network, (frames, isBottom) => this.stackOf(frames, isBottom));
    closure.add(this.network.rules[this.network.root]!.start, this.stackOf([], true));
    return this.stateOf(closure)!;
  }

  private stateOf(closure: Closure): State | null {
    closure.complete();
    const { positions, isAccepting } = closure;
    if (positions.length === 0 && !isAccepting) return null;
    const key = `${isAccepting} ${positions
      .map(({ node, stack }) => `${node}.${stack.id}`)
      .sort()
      .join(' ')}`;
    let state = this.states.get(key);
    if (!state) {
      state = { positions, isAccepting, next: new Array<State | null | undefined>(256), mask: null };
      this.states.set(key, state);
    }
    return state;
  }

  private stackOf(positions: readonly Position[], isBottom: boolean): Stack {
    const frames = positions.map(({ node, stack }) => this.frameOf(node, stack)).sort((a, b) => a.id - b.id);
    const key = `${isBottom} ${frames.map(({ id }) => id).join(' ')}`;
    let stack = this.stacks.get(key);
    if (!stack) this.stacks.set(key, (stack = { id: ++this.lastId, frames, isBottom }));
    return stack;
  }

  private frameOf(node: number, stack: Stack): Frame {
    const key = `${node} ${stack.id}`;
    let frame = this.frames.get(key);
    if (!frame) this.frames.set(key, (frame = { id: ++this.lastId, node, stack }));
    return frame;
  }

  /** States that are in use stay valid, for they hold all that they need; only sharing is lost. */
  private forget(): void {
    this.frames = new Map();
    this.stacks = new Map();
    this.states = new Map();
    this.start.next.fill(undefined);
  }
}

/** Collects all positions that can be reached without taking a byte. */
class Closure {
  readonly positions: Position[] = [];
  isAccepting = false;
  /** Nodes seen, by stack. */
  private readonly seen = new Map<Stack, Set<number>>();
  /** Rules to go through, each with all the ways back from it. */
  private readonly pending = new Map<number, Calls>();

  constructor(
    private readonly network: Network,
    private readonly stackOf: (frames: readonly Position[], isBottom: boolean) => Stack,
  ) {}

  add(node: number, stack: Stack): void {
    let nodes = this.seen.get(stack);
    if (!nodes) this.seen.set(stack, (nodes = new Set()));
    const work = [node];
    for (let at = work.pop(); at !== undefined; at = work.pop()) {
      if (nodes.has(at)) continue;
      nodes.add(at);
      const { network } = this;
      if (network.bytes[at]!.length > 0) this.positions.push({ node: at, stack });
      if (network.endOf[at]! >= 0) this.leave(stack);
      for (const to of network.empties[at]!) work.push(to);
      for (const { rule, to } of network.calls[at]!) {
        this.call(rule, to, stack);
        if (network.nullable[rule]) work.push(to);
      }
    }
  }

  /**
   * Goes through the rules that were called, callers first: by then all the ways back from a rule are known, since no
   * rule calls itself before it has taken a byte.
   */
  complete(): void {
    while (this.pending.size > 0) {
      let rule = -1;
      for (const other of this.pending.keys()) {
        if (rule < 0 || this.network.rank[other]! < this.network.rank[rule]!) rule = other;
      }
      const { frames, isBottom } = this.pending.get(rule)!;
      this.pending.delete(rule);
      this.add(this.network.rules[rule]!.start, this.stackOf([...frames.values()], isBottom));
    }
  }

  private leave(stack: Stack): void {
    if (stack.isBottom) this.isAccepting = true;
    for (const frame of stack.frames) this.add(frame.node, frame.stack);
  }

  private call(rule: number, to: number, stack: Stack): void {
    let calls = this.pending.get(rule);
    if (!calls) this.pending.set(rule, (calls = { frames: new Map(), isBottom: false }));
    if (!this.network.isTail[to]) {
      calls.frames.set(`${to} ${stack.id}`, { node: to, stack });
      return;
    }
    // From there the caller could only end in turn.
    calls.isBottom ||= stack.isBottom;
    for (const frame of stack.frames) calls.frames.set(`${frame.node} ${frame.stack.id}`, frame);
  }
}

interface Calls {
  frames: Map<string, Position>;
  isBottom: boolean;
}
