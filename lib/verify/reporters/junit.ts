import { formatCheck, formatDifference } from '../report.js';
import { verdict, type CheckResult, type ModeResult, type TestReport } from '../types.js';

/** The report as JUnit XML: a suite per mode, a case per line; a mode that could not be tested is an error. */
export function toJunit(report: TestReport): string {
  const suites = report.modes.map(suite);
  const total = (key: 'tests' | 'failures' | 'errors'): number => suites.reduce((sum, one) => sum + one[key], 0);
  const seconds = report.modes.reduce((sum, mode) => sum + mode.seconds, 0);
  return [
    '<?xml version="1.0" encoding="UTF-8"?>',
    `<testsuites name="detinfer test" tests="${total('tests')}" failures="${total('failures')}" ` +
      `errors="${total('errors')}" time="${seconds.toFixed(3)}">`,
    ...suites.map((one) => one.xml),
    '</testsuites>',
    '',
  ].join('\n');
}

interface Suite {
  tests: number;
  failures: number;
  errors: number;
  xml: string;
}

function suite({ mode, checks, error, notes, seconds }: ModeResult): Suite {
  const failures = checks.filter((check) => verdict(check) === 'different').length;
  const empty = checks.filter((check) => verdict(check) === 'nothing compared').length;
  const errors = empty + (error === null ? 0 : 1);
  const tests = checks.length + (error === null ? 0 : 1);
  const cases = checks.map((check) => testCase(mode, check));
  if (error !== null)
    cases.push(`    <testcase classname="${mode}" name="run">${element('error', error, error)}</testcase>`);
  const counts = `tests="${tests}" failures="${failures}" errors="${errors}" time="${seconds.toFixed(3)}"`;
  const xml = [
    `  <testsuite name="${mode}" ${counts}>`,
    ...cases,
    ...(notes.length === 0 ? [] : [`    <system-out>${escapeXml(notes.join('\n'))}</system-out>`]),
    '  </testsuite>',
  ].join('\n');
  return { tests, failures, errors, xml };
}

function testCase(mode: string, check: CheckResult): string {
  const line = formatCheck(check);
  const open = `    <testcase classname="${mode}" name="${escapeXml(check.name === '' ? 'all answers' : check.name)}">`;
  const details = check.differences.flatMap(formatDifference).join('\n');
  const failure = verdict(check) === 'different' ? element('failure', line, details) : '';
  const error = verdict(check) === 'nothing compared' ? element('error', 'too few samples to compare', line) : '';
  return `${open}${failure}${error}</testcase>`;
}

function element(tag: string, message: string, body: string): string {
  return `<${tag} message="${escapeXml(message)}">${escapeXml(body)}</${tag}>`;
}

const ENTITIES: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&apos;' };

/** XML 1.0 has no way to write most control characters, surrogate halves, U+FFFE and U+FFFF: they become U+FFFD. */
export function escapeXml(text: string): string {
  return text
    .replace(/[^\t\n\r\u{20}-\u{D7FF}\u{E000}-\u{FFFD}\u{10000}-\u{10FFFF}]/gu, '\u{FFFD}')
    .replace(/[&<>"']/g, (character) => ENTITIES[character] as string);
}
