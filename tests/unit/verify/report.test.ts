import { describe, expect, test } from '@jest/globals';
import { formatReport, PLAIN } from '../../../lib/verify/report.js';
import { toJson } from '../../../lib/verify/reporters/json.js';
import { escapeXml, toJunit } from '../../../lib/verify/reporters/junit.js';
import {
  exitCode,
  type CheckResult,
  type Difference,
  type ModeResult,
  type TestReport,
} from '../../../lib/verify/types.js';

const SAME: CheckResult = { name: '', total: 1275, unique: 1, tokens: 127500, differences: [] };

const DIFFERENCE: Difference = {
  kind: 'token',
  position: 12,
  part: 'output',
  sides: [
    {
      origin: { trial: 1, batchSize: 1, index: 0 },
      tokenId: 262,
      tokenText: ' the',
      logprob: -0.12345677614212036,
      excerpt: null,
    },
    {
      origin: { trial: 7, batchSize: 7, index: 3 },
      tokenId: 257,
      tokenText: ' "a"',
      logprob: -0.12345678359270096,
      excerpt: null,
    },
  ],
  scoredAfterwards: false,
};

function report(...modes: Partial<ModeResult>[]): TestReport {
  return {
    url: 'http://localhost:30000',
    server: {
      modelPath: 'models/demo',
      version: '0.1.0',
      numericContract: 'detinfer-numerics/1',
      device: 'cpu',
      attentionBackend: 'fa3',
      deterministic: true,
      skipTokenizerInit: false,
      vocabSize: 4096,
      contextLength: 4096,
    },
    prompts: 'text',
    options: {
      nTrials: 50,
      nStart: 1,
      temperature: 0,
      samplingSeed: 42,
      maxNewTokens: 100,
      frequencyPenalty: 0,
      presencePenalty: 0,
      topP: null,
      topK: null,
      minP: null,
      returnLogprob: false,
      stream: false,
      randomSeed: 42,
      vocabSize: null,
    },
    notes: [],
    modes: modes.map((mode) => ({ mode: 'single', error: null, checks: [SAME], notes: [], seconds: 1.5, ...mode })),
  };
}

describe('exit code', () => {
  const different = { ...SAME, unique: 2 };
  test.each<[string, Partial<ModeResult>[], number]>([
    ['all the same', [{}, {}], 0],
    ['one differs', [{}, { checks: [SAME, different] }], 1],
    ['one mode failed', [{}, { checks: [], error: 'gone' }], 2],
    ['a difference weighs more than a failure', [{ checks: [different] }, { checks: [], error: 'gone' }], 1],
    ['no sample', [{ checks: [{ ...SAME, total: 0, unique: 0 }] }], 2],
    ['one sample', [{ checks: [{ ...SAME, total: 1 }] }], 2],
    ['no check', [{ checks: [] }], 2],
    ['no mode', [], 2],
  ])('%s', (_, modes, code) => {
    expect(exitCode(report(...modes))).toBe(code);
  });
});

describe('text', () => {
  test('has the lines of SGLang', () => {
    const named = { ...SAME, name: 'Prompt 1 with prefix length 511', total: 7 };
    const lines = formatReport(report({ checks: [SAME, named] }), PLAIN);
    expect(lines).toContain('Total samples: 1275, Unique samples: 1');
    expect(lines).toContain('Prompt 1 with prefix length 511: total samples: 7, Unique samples: 1');
    expect(lines.at(-1)).toBe('Deterministic: every unique count is 1 (1.5 s)');
  });

  test('shows a difference', () => {
    const lines = formatReport(report({ checks: [{ ...SAME, unique: 2, differences: [DIFFERENCE] }] }), PLAIN);
    expect(lines.slice(-6)).toEqual([
      'Total samples: 1275, Unique samples: 2',
      '  first difference: token at output token 12',
      '    token 262 " the", logprob -0.12345677614212036  (trial 1, batch of 1, item 0)',
      '    token 257 " \\"a\\"", logprob -0.12345678359270096  (trial 7, batch of 7, item 3)',
      '',
      'NOT deterministic: answers differ (1.5 s)',
    ]);
  });

  test('shows notes and what could not be tested', () => {
    const text = formatReport(report({ checks: [], error: 'the server is gone', notes: ['shortened'] }), PLAIN).join(
      '\n',
    );
    expect(text).toContain('note: shortened');
    expect(text).toContain('could not test: the server is gone');
    expect(text).toContain('Could not test (');
  });
});

test('JSON holds the whole report', () => {
  const full = report({ checks: [{ ...SAME, unique: 2, differences: [DIFFERENCE] }] });
  expect(JSON.parse(toJson(full))).toEqual({ exit_code: 1, ...full });
});

describe('JUnit', () => {
  test('has a case per line, a failure per difference and an error per mode that failed', () => {
    const xml = toJunit(
      report(
        { checks: [SAME, { ...SAME, name: 'Prompt <1>', unique: 2, differences: [DIFFERENCE] }] },
        { mode: 'prefix', checks: [], error: 'a & b', notes: ['"quoted"'] },
        { mode: 'mixed', checks: [{ ...SAME, total: 0, unique: 0 }] },
      ),
    );
    expect(xml).toContain('<testsuites name="detinfer test" tests="4" failures="1" errors="2" time="4.500">');
    expect(xml).toContain('<testsuite name="single" tests="2" failures="1" errors="0" time="1.500">');
    expect(xml).toContain('<testcase classname="single" name="all answers"></testcase>');
    expect(xml).toContain(
      'name="Prompt &lt;1&gt;"><failure message="Prompt &lt;1&gt;: total samples: 1275, Unique samples: 2">',
    );
    expect(xml).toContain('token 257 &quot; \\&quot;a\\&quot;&quot;');
    expect(xml).toContain(
      '<testcase classname="prefix" name="run"><error message="a &amp; b">a &amp; b</error></testcase>',
    );
    expect(xml).toContain('<system-out>&quot;quoted&quot;</system-out>');
    expect(xml).toContain('<error message="too few samples to compare">');
  });

  test('escapes what XML cannot hold', () => {
    expect(escapeXml(`a<b>&"c"'`)).toBe('a&lt;b&gt;&amp;&quot;c&quot;&apos;');
    expect(escapeXml('\u0000\u001b\ufffe\uffff\t\n')).toBe('\ufffd\ufffd\ufffd\ufffd\t\n');
    expect(escapeXml('\ud83d\ude00 \ud83d.')).toBe('\u{1f600} \ufffd.');
  });
});
