import { badGrammar, unsupported } from './errors.js';
import type { Expr, Rules } from './expr.js';
import { type ByteRange, utf8Sequences } from './utf8.js';

/** More would take long to build; a schema of a thousand properties has a tenth. */
const MAX_NODES = 200_000;
const MAX_DEPTH = 2_000;
/** An item that is repeated more often becomes a rule of its own, so that its copies are small. */
const MAX_COPIES = 4;

export interface ByteEdge {
  low: number;
  high: number;
  to: number;
}

/** Goes through a rule and on at `to`. */
export interface CallEdge {
  rule: number;
  to: number;
}

interface RuleNodes {
  start: number;
  end: number;
}

/**
 * A grammar as a recursive transition network: one nondeterministic automaton over bytes per rule, whose edges may call
 * rules. From every node that is left, some text ends the grammar; no rule calls itself before it has taken a byte.
 */
export class Network {
  readonly bytes: ByteEdge[][] = [];
  readonly empties: number[][] = [];
  readonly calls: CallEdge[][] = [];
  /** Nodes from where a rule can only end: a call that goes on there need not come back. */
  readonly isTail: boolean[];
  /** The rule that ends at a node, or -1. */
  readonly endOf: number[] = [];
  readonly rules: RuleNodes[] = [];
  readonly nullable: boolean[];
  /** For each rule its place in an order where callers come before what they call first of all. */
  readonly rank: number[];
  readonly root: number;
  private readonly ruleIds = new Map<string, number>();
  private readonly queue: [id: number, expr: Expr][] = [];

  /** @throws DetinferError INVALID_REQUEST or UNSUPPORTED: matches nothing, too large, or left-recursive. */
  constructor({ root, rules }: Rules) {
    for (const name of rules.keys()) this.ruleIds.set(name, this.addRule());
    for (const [name, expr] of rules) this.queue.push([this.ruleIds.get(name)!, expr]);
    for (let next = this.queue.pop(); next; next = this.queue.pop()) this.buildRule(...next);
    this.root = this.ruleIds.get(root)!;
    const endsAtOnce = this.findEnding(false);
    this.nullable = this.rules.map(({ start }) => endsAtOnce[start]!);
    this.prune();
    this.isTail = this.findTails();
    this.rank = this.order([...rules.keys()]);
  }

  /** Every byte that some text of the grammar holds, as flags. */
  usedBytes(): boolean[] {
    const used = new Array<boolean>(256).fill(false);
    for (const edges of this.bytes) for (const { low, high } of edges) used.fill(true, low, high + 1);
    return used;
  }

  private addNode(): number {
    if (this.bytes.length >= MAX_NODES) throw unsupported('The grammar is too large; make it simpler.');
    this.empties.push([]);
    this.calls.push([]);
    this.endOf.push(-1);
    return this.bytes.push([]) - 1;
  }

  private addRule(): number {
    const id = this.rules.length;
    const nodes = { start: this.addNode(), end: this.addNode() };
    this.rules.push(nodes);
    this.endOf[nodes.end] = id;
    return id;
  }

  private buildRule(id: number, expr: Expr): void {
    const { start, end } = this.rules[id]!;
    this.empties[this.build(expr, start, 0)]!.push(end);
  }

  /** Adds what matches the expression after `from`. @returns the node where it ends, which has no edges yet. */
  private build(expr: Expr, from: number, depth: number): number {
    if (depth > MAX_DEPTH) throw unsupported('The grammar nests too deep; make it simpler.');
    switch (expr.type) {
      case 'seq':
        return expr.items.reduce((node, item) => this.build(item, node, depth + 1), from);
      case 'alt': {
        const to = this.addNode();
        for (const item of expr.items) {
          // An alternative that loops back must not lead into the others.
          const start = this.addNode();
          this.empties[from]!.push(start);
          this.empties[this.build(item, start, depth + 1)]!.push(to);
        }
        return to;
      }
      case 'chars': {
        const to = this.addNode();
        for (const sequence of utf8Sequences(expr.set)) this.addBytes(from, sequence, to);
        return to;
      }
      case 'repeat':
        return this.buildRepeat(expr.item, expr.min, expr.max, from, depth);
      case 'ref':
        return this.call(this.ruleIds.get(expr.rule)!, from);
    }
  }

  private addBytes(from: number, sequence: ByteRange[], to: number): void {
    let node = from;
    sequence.forEach(([low, high], i) => {
      const isLast = i === sequence.length - 1;
      const next = isLast ? to : this.addNode();
      this.bytes[node]!.push({ low, high, to: next });
      node = next;
    });
  }

  private call(rule: number, from: number): number {
    const to = this.addNode();
    this.calls[from]!.push({ rule, to });
    return to;
  }

  private buildRepeat(item: Expr, min: number, max: number | null, from: number, depth: number): number {
    let once = (node: number): number => this.build(item, node, depth + 1);
    if ((max ?? min) > MAX_COPIES && item.type !== 'ref') {
      const rule = this.addRule();
      this.queue.push([rule, item]);
      once = (node) => this.call(rule, node);
    }
    let node = from;
    for (let i = 0; i < min; ++i) node = once(node);
    if (max === null) {
      const loop = this.addNode();
      this.empties[node]!.push(loop);
      this.empties[once(loop)]!.push(loop);
      const to = this.addNode();
      this.empties[loop]!.push(to);
      return to;
    }
    const to = this.addNode();
    for (let i = min; i < max; ++i) {
      this.empties[node]!.push(to);
      // The start of a copy must have no other way in than the copy before it.
      const start = this.addNode();
      this.empties[node]!.push(start);
      node = once(start);
    }
    this.empties[node]!.push(to);
    return to;
  }

  /** Nodes that can be reached without taking a byte. */
  private reachable(from: number): Set<number> {
    const seen = new Set([from]);
    for (const node of seen) {
      for (const to of this.empties[node]!) seen.add(to);
      for (const { rule, to } of this.calls[node]!) if (this.nullable[rule]) seen.add(to);
    }
    return seen;
  }

  /** Removes every edge from where the grammar could never end. @throws DetinferError when nothing is left. */
  private prune(): void {
    const productive = this.findEnding(true);
    if (!productive[this.rules[this.root]!.start]) throw badGrammar('The grammar matches no text at all.');
    const ends = (rule: number): boolean => productive[this.rules[rule]!.start]!;
    for (let node = 0; node < this.bytes.length; ++node) {
      this.bytes[node] = this.bytes[node]!.filter(({ to }) => productive[to]);
      this.empties[node] = this.empties[node]!.filter((to) => productive[to]);
      this.calls[node] = this.calls[node]!.filter(({ rule, to }) => productive[to] && ends(rule));
    }
  }

  /** Nodes from where their rule can end, found backwards from the ends. @param withBytes false: without a byte. */
  private findEnding(withBytes: boolean): boolean[] {
    const before: number[][] = this.bytes.map(() => []);
    const callsTo: { rule: number; from: number }[][] = this.bytes.map(() => []);
    const callsOf: { from: number; to: number }[][] = this.rules.map(() => []);
    for (let node = 0; node < this.bytes.length; ++node) {
      if (withBytes) for (const { to } of this.bytes[node]!) before[to]!.push(node);
      for (const to of this.empties[node]!) before[to]!.push(node);
      for (const { rule, to } of this.calls[node]!) {
        callsTo[to]!.push({ rule, from: node });
        callsOf[rule]!.push({ from: node, to });
      }
    }
    const ruleAt = new Map(this.rules.map(({ start }, rule) => [start, rule]));
    const ending = this.bytes.map(() => false);
    const work: number[] = [];
    const mark = (node: number): void => {
      if (ending[node]) return;
      ending[node] = true;
      work.push(node);
    };
    for (const { end } of this.rules) mark(end);
    for (let node = work.pop(); node !== undefined; node = work.pop()) {
      before[node]!.forEach(mark);
      for (const { rule, from } of callsTo[node]!) if (ending[this.rules[rule]!.start]) mark(from);
      const rule = ruleAt.get(node);
      if (rule !== undefined) for (const { from, to } of callsOf[rule]!) if (ending[to]) mark(from);
    }
    return ending;
  }

  /** Found backwards from the ends: a node is a tail once all that it leads to are. */
  private findTails(): boolean[] {
    const before: number[][] = this.bytes.map(() => []);
    this.empties.forEach((tos, node) => tos.forEach((to) => before[to]!.push(node)));
    const left = this.empties.map((tos) => tos.length);
    const isTail = this.endOf.map((rule) => rule >= 0);
    const work = [...isTail.keys()].filter((node) => isTail[node]);
    for (let tail = work.pop(); tail !== undefined; tail = work.pop()) {
      for (const node of before[tail]!) {
        left[node]! -= 1;
        if (isTail[node] || left[node]! > 0 || this.bytes[node]!.length > 0 || this.calls[node]!.length > 0) continue;
        isTail[node] = true;
        work.push(node);
      }
    }
    return isTail;
  }

  /** @throws DetinferError UNSUPPORTED for a rule that begins with itself. */
  private order(names: readonly string[]): number[] {
    const first = this.rules.map(({ start }) => {
      const called = new Set<number>();
      for (const node of this.reachable(start)) for (const { rule } of this.calls[node]!) called.add(rule);
      return called;
    });
    const rank = new Array<number>(this.rules.length).fill(-1);
    const state = this.rules.map(() => 'new' as 'new' | 'open' | 'done');
    let next = this.rules.length;
    for (let root = 0; root < this.rules.length; ++root) {
      const stack = state[root] === 'new' ? [{ rule: root, callees: [...first[root]!] }] : [];
      if (stack.length > 0) state[root] = 'open';
      while (stack.length > 0) {
        const { rule, callees } = stack.at(-1)!;
        const callee = callees.pop();
        if (callee === undefined) {
          state[rule] = 'done';
          rank[rule] = --next;
          stack.pop();
        } else if (state[callee] === 'open') {
          const name = names[callee] === undefined ? 'A rule' : `The rule ${names[callee]}`;
          throw unsupported(`${name} of the grammar begins with itself (left recursion); write it as a repetition.`);
        } else if (state[callee] === 'new') {
          state[callee] = 'open';
          stack.push({ rule: callee, callees: [...first[callee]!] });
        }
      }
    }
    return rank;
  }
}
