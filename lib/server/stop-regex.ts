import { RE2JS } from 're2js';

import { DetinferError } from '../protocol/errors.js';
import type { StopScanner } from './stop-matcher.js';

const MAX_PATTERN_LENGTH = 1024;
/** Instructions of one compiled pattern; each costs some nanoseconds per character of output. */
const MAX_PROGRAM_SIZE = 4096;

/** Instructions of RE2's virtual machine. */
const ALT = 1;
const ALT_MATCH = 2;
const CAPTURE = 3;
const EMPTY_WIDTH = 4;
const MATCH = 6;
const NOP = 7;
const RUNE = 8;
const RUNE1 = 9;
const RUNE_ANY = 10;
const RUNE_ANY_NOT_NL = 11;

/** What an EMPTY_WIDTH instruction asks for. */
const BEGIN_LINE = 1;
const END_LINE = 2;
const BEGIN_TEXT = 4;
const END_TEXT = 8;
const WORD_BOUNDARY = 16;
const NO_WORD_BOUNDARY = 32;

const NEWLINE = 10;
/** Stands for the missing character before the first and after the last one. */
const NONE = -1;

interface Instruction {
  op: number;
  out: number;
  arg: number;
  matchRune(codePoint: number): boolean;
}

/** A compiled stop_regex. */
export interface StopRegex {
  pattern: string;
  start: number;
  instructions: Instruction[];
}

/**
 * Compiles a pattern in RE2's syntax (no look-around, no back references, hence linear time).
 * @throws DetinferError INVALID_REQUEST
 */
export function compileStopRegex(pattern: string): StopRegex {
  if (pattern.length > MAX_PATTERN_LENGTH) {
    throw new DetinferError('INVALID_REQUEST', `stop_regex is longer than ${MAX_PATTERN_LENGTH} characters.`);
  }
  let program: { inst: Instruction[]; start: number };
  try {
    program = RE2JS.compile(pattern).re2().prog;
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new DetinferError('INVALID_REQUEST', `stop_regex ${JSON.stringify(pattern)} can't be used: ${reason}`);
  }
  if (program.inst.length > MAX_PROGRAM_SIZE) {
    throw new DetinferError('INVALID_REQUEST', `stop_regex ${JSON.stringify(pattern)} is too complex.`);
  }
  return { pattern, start: program.start, instructions: program.inst };
}

/** States of the automaton, each with the offset at which its match would begin; sorted by that offset. */
class Threads {
  readonly states: number[] = [];
  readonly begins: number[] = [];

  add(state: number, begin: number): void {
    this.states.push(state);
    this.begins.push(begin);
  }

  clear(): void {
    this.states.length = 0;
    this.begins.length = 0;
  }
}

/**
 * Finds the end of the first match in text that arrives character by character, and knows at any time where the
 * earliest match that is still possible would begin. Runs RE2's program as a Thompson automaton: re2js itself searches
 * whole strings only. Of the matches that end first it takes the one that begins first; empty matches do not count.
 */
export class RegexScanner implements StopScanner {
  readonly pattern: string;
  /** Where the automaton stands before its assertions about the next character are decided. */
  private threads = new Threads();
  private next = new Threads();
  /** Character-consuming states that can be reached from `threads`. */
  private readonly reached = new Threads();
  private readonly visited: Uint32Array;
  private generation = 0;
  private last = NONE;

  constructor(private readonly regex: StopRegex) {
    this.pattern = regex.pattern;
    this.visited = new Uint32Array(regex.instructions.length);
  }

  step(codePoint: number, offset: number, end: number): number {
    this.threads.add(this.regex.start, offset);
    const decided = this.closure(contextBetween(this.last, codePoint), offset);
    if (decided >= 0) return decided;
    this.consume(codePoint);
    this.last = codePoint;
    return this.closure(contextAfter(codePoint), end);
  }

  finish(end: number): number {
    return this.closure(contextBetween(this.last, NONE), end);
  }

  earliestStart(end: number): number {
    return this.threads.begins[0] ?? end;
  }

  /** Follows everything that consumes no character. @returns where a match that ends at `end` begins, or -1. */
  private closure(context: number, end: number): number {
    this.reached.clear();
    this.generation += 1;
    const { instructions } = this.regex;
    const stack: number[] = [];
    for (let i = 0; i < this.threads.states.length; ++i) {
      const begin = this.threads.begins[i]!;
      stack.push(this.threads.states[i]!);
      while (stack.length > 0) {
        const state = stack.pop()!;
        if (this.visited[state] === this.generation) continue;
        this.visited[state] = this.generation;
        const { op, out, arg } = instructions[state]!;
        if (op === MATCH && begin < end) return begin;
        if (op === ALT || op === ALT_MATCH) stack.push(arg, out);
        else if (op === CAPTURE || op === NOP) stack.push(out);
        else if (op === EMPTY_WIDTH && (arg & ~context) === 0) stack.push(out);
        else if (op >= RUNE) this.reached.add(state, begin);
      }
    }
    return -1;
  }

  private consume(codePoint: number): void {
    this.next.clear();
    const { states, begins } = this.reached;
    for (let i = 0; i < states.length; ++i) {
      const instruction = this.regex.instructions[states[i]!]!;
      if (accepts(instruction, codePoint)) this.next.add(instruction.out, begins[i]!);
    }
    [this.threads, this.next] = [this.next, this.threads];
  }
}

function accepts(instruction: Instruction, codePoint: number): boolean {
  switch (instruction.op) {
    case RUNE:
    case RUNE1:
      return instruction.matchRune(codePoint);
    case RUNE_ANY:
      return true;
    case RUNE_ANY_NOT_NL:
      return codePoint !== NEWLINE;
    default:
      return false;
  }
}

/** 0-9, A-Z, _ and a-z. */
function isWord(codePoint: number): boolean {
  return (
    (codePoint >= 97 && codePoint <= 122) ||
    (codePoint >= 65 && codePoint <= 90) ||
    (codePoint >= 48 && codePoint <= 57) ||
    codePoint === 95
  );
}

function contextBetween(before: number, after: number): number {
  let context = contextAfter(before);
  if (after === NONE) context |= END_TEXT | END_LINE;
  if (after === NEWLINE) context |= END_LINE;
  return context | (isWord(before) === isWord(after) ? NO_WORD_BOUNDARY : WORD_BOUNDARY);
}

/** What is certain about a place before the character after it is known. */
function contextAfter(before: number): number {
  if (before === NONE) return BEGIN_TEXT | BEGIN_LINE;
  return before === NEWLINE ? BEGIN_LINE : 0;
}
