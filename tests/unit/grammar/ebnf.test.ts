import { describe, expect, test } from '@jest/globals';

import { accepts, machineFor } from './walk.js';

const matches = (grammar: string, texts: string[]): boolean[] => {
  const machine = machineFor('ebnf', grammar);
  return texts.map((text) => accepts(machine, text));
};

test('rules, literals, classes, groups and repetitions', () => {
  const grammar = String.raw`
    # A list of numbers or names.
    root  ::= "[" item ("," " "? item)* "]"   # at least one
    item  ::= number
            | name
    number ::= "-"? [0-9]{1,3}
    name  ::= [^\x00-\x1f",\]\[0-9-]+ "\u00e9"?
  `;
  const good = ['[1]', '[-12, abc]', '[grün,é,999]', '[😀]'];
  const bad = ['[]', '[1234]', '[1,]', '[a"b]', '1', '[1]]'];
  expect(matches(grammar, good)).toEqual(good.map(() => true));
  expect(matches(grammar, bad)).toEqual(bad.map(() => false));
});

test('what no regular expression can say', () => {
  const nested = 'root ::= "a" root "b" | "c"';
  expect(matches(nested, ['c', 'acb', 'aaacbbb', 'aacb', 'acbb'])).toEqual([true, true, true, false, false]);
  const balanced = 'root ::= ("(" root ")" | "[" root "]")*';
  expect(matches(balanced, ['', '()[([])]', '(]', '(()'])).toEqual([true, true, false, false]);
  // Palindromes are ambiguous at every character: where is the middle?
  const palindrome = 'root ::= "" | "a" | "b" | "a" root "a" | "b" root "b"';
  expect(matches(palindrome, ['abba', 'aba', 'ab', `${'ab'.repeat(60)}a`, 'ab'.repeat(60)])).toEqual([
    true,
    true,
    false,
    true,
    false,
  ]);
});

test('a long list by right recursion keeps a small number of states', () => {
  const machine = machineFor('ebnf', 'root ::= "a" root | "b" tail\ntail ::= "c" tail | ""');
  let state = machine.start;
  const states = new Set([state]);
  for (const byte of Buffer.from(`${'a'.repeat(500)}b${'c'.repeat(500)}`)) {
    state = machine.step(state, byte)!;
    states.add(state);
  }
  expect(state.isAccepting).toBe(true);
  expect(states.size).toBeLessThan(5);
});

test('exponentially ambiguous grammars take linear time', () => {
  const machine = machineFor('ebnf', 'root ::= s\ns ::= "a" s | "a" s s | "a"');
  expect(accepts(machine, 'a'.repeat(300))).toBe(true);
});

test('a rule that never ends takes no part', () => {
  expect(matches('root ::= "a" | "b" endless\nendless ::= "x" endless', ['a', 'b', 'bx'])).toEqual([
    true,
    false,
    false,
  ]);
  const machine = machineFor('ebnf', 'root ::= "a" | "b" endless\nendless ::= "x" endless');
  expect(machine.step(machine.start, 0x62)).toBeNull();
});

describe('is refused', () => {
  test.each<[string, string, RegExp]>([
    ['', 'INVALID_REQUEST', /no rule root/],
    ['start ::= "a"', 'INVALID_REQUEST', /no rule root/],
    ['root ::= missing', 'INVALID_REQUEST', /no rule missing, which line 1 mentions/],
    ['root ::= "a"\nroot ::= "b"', 'INVALID_REQUEST', /line 2: the rule root is defined twice/],
    ['root ::= "a', 'INVALID_REQUEST', /" is missing/],
    ['root ::= [a', 'INVALID_REQUEST', /\] is missing/],
    ['root ::= ("a"', 'INVALID_REQUEST', /\) is missing/],
    ['root = "a"', 'INVALID_REQUEST', /::= must follow the name root/],
    ['root ::= "a" )', 'INVALID_REQUEST', /a rule must begin with its name/],
    ['root ::= "\\q"', 'INVALID_REQUEST', /escape \\q means nothing/],
    ['root ::= "\\ud800"', 'INVALID_REQUEST', /half of a surrogate pair/],
    ['root ::= "a"{3,1}', 'INVALID_REQUEST', /a bad repetition/],
    ['root ::= "x" root', 'INVALID_REQUEST', /matches no text at all/],
    ['root ::= root "a" | "b"', 'UNSUPPORTED', /rule root .* begins with itself/],
    ['root ::= a\na ::= b? a2\nb ::= "b"\na2 ::= a "x" | "y"', 'UNSUPPORTED', /begins with itself/],
  ])('%s', (grammar, code, message) => {
    const compile = () => machineFor('ebnf', grammar);
    expect(compile).toThrow(expect.objectContaining({ code, message: expect.stringMatching(message) }));
  });
});
