/**
 * Parsers of flag values. Each turns the text after a flag into a value or throws an Error whose message completes the
 * sentence "--flag …": the caller knows the flag's name.
 */
export type ParseValue<T> = (text: string) => T;

export interface Range {
  min?: number;
  max?: number;
  /** Values outside the range that are allowed too, such as -1 for "off". */
  also?: number[];
}

/** A whole number in decimal notation. */
export function integer(range: Range = {}): ParseValue<number> {
  return (text) => {
    const value = /^[+-]?\d+$/.test(text) ? Number(text) : NaN;
    if (!Number.isSafeInteger(value) || !inRange(value, range)) {
      throw new Error(`needs a whole number${describe(range)}, not '${text}'`);
    }
    return value;
  };
}

/** Of the CPU engine: more than any machine has cores for. */
export const threadCount = integer({ min: 1, max: 1024 });

/** A decimal number. */
export function decimal(range: Range & { exclusiveMin?: number } = {}): ParseValue<number> {
  return (text) => {
    const value = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text) ? Number(text) : NaN;
    const aboveMin = range.exclusiveMin === undefined || value > range.exclusiveMin;
    if (!Number.isFinite(value) || !inRange(value, range) || !aboveMin) {
      throw new Error(`needs a number${describe(range)}, not '${text}'`);
    }
    return value;
  };
}

/** One of a fixed set of words. */
export function oneOf<T extends string>(...words: T[]): ParseValue<T> {
  return (text) => {
    const word = words.find((candidate) => candidate === text);
    if (word === undefined) throw new Error(`takes ${words.join(' | ')}, not '${text}'`);
    return word;
  };
}

/** Any text that is not empty. A text that looks like the next flag means that the value was forgotten. */
export function text(): ParseValue<string> {
  return (value) => {
    if (value.trim() === '' || value.startsWith('--')) throw new Error(`needs a value, not '${value}'`);
    return value;
  };
}

/** The base URL of a server. */
export function baseUrl(): ParseValue<string> {
  return (value) => {
    if (!/^https?:\/\//.test(value) || !URL.canParse(value)) {
      throw new Error(`needs a URL such as http://localhost:30000, not '${value}'`);
    }
    return value;
  };
}

/** Values that commas separate, each once. */
export function list<T>(value: ParseValue<T>): ParseValue<T[]> {
  return (text) => [...new Set(text.split(',').map((part) => value(part.trim())))];
}

/** The text of a JSON object; kept as text, since it crosses a process boundary and is reported as it was given. */
export function jsonObject(): ParseValue<string> {
  return (value) => {
    let parsed: unknown;
    try {
      parsed = JSON.parse(value);
    } catch (error) {
      throw new Error(`needs a JSON object: ${(error as Error).message}`);
    }
    if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed)) {
      throw new Error(`needs a JSON object, not '${value}'`);
    }
    return value;
  };
}

function inRange(value: number, { min = -Infinity, max = Infinity, also = [] }: Range): boolean {
  return (value >= min && value <= max) || also.includes(value);
}

function describe({ min, max, also = [], exclusiveMin }: Range & { exclusiveMin?: number }): string {
  const lower = exclusiveMin !== undefined ? `above ${exclusiveMin}` : min !== undefined ? `from ${min}` : '';
  const upper = max !== undefined ? `up to ${max}` : '';
  const rest = also.length > 0 ? `or ${also.join(', ')}` : '';
  const parts = [lower, upper, rest].filter((part) => part !== '');
  return parts.length > 0 ? ` ${parts.join(' ')}` : '';
}
