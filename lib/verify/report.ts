import {
  exitCode,
  verdict,
  type CheckResult,
  type Difference,
  type DifferenceSide,
  type ModeResult,
  type Origin,
  type TestReport,
} from './types.js';

/** How the words of a report are decorated; the identity where colours are not wanted. */
export interface Style {
  good(text: string): string;
  bad(text: string): string;
  warn(text: string): string;
  strong(text: string): string;
  dim(text: string): string;
}

const identity = (text: string): string => text;
export const PLAIN: Style = { good: identity, bad: identity, warn: identity, strong: identity, dim: identity };

const VERDICTS = {
  0: 'Deterministic: every unique count is 1',
  1: 'NOT deterministic: answers differ',
  2: 'Could not test',
} as const;

/** The whole report for a terminal, as lines. */
export function formatReport(report: TestReport, style: Style): string[] {
  const code = exitCode(report);
  const paint = code === 0 ? style.good : code === 1 ? style.bad : style.warn;
  const seconds = report.modes.reduce((sum, mode) => sum + mode.seconds, 0);
  return [
    formatServer(report),
    ...report.notes.map((note) => style.warn(`note: ${note}`)),
    ...report.modes.flatMap((mode) => ['', ...formatMode(mode, style)]),
    '',
    `${paint(VERDICTS[code])}${style.dim(` (${seconds.toFixed(1)} s)`)}`,
  ];
}

/** SGLang's line, so that scripts that read it go on working. */
export function formatCheck({ name, total, unique }: CheckResult): string {
  const counts = `otal samples: ${total}, Unique samples: ${unique}`;
  return name === '' ? `T${counts}` : `${name}: t${counts}`;
}

/** A difference in plain words, as lines. */
export function formatDifference(difference: Difference): string[] {
  const { kind, position, part, sides, scoredAfterwards } = difference;
  const unit = kind === 'text' || kind === 'field' ? 'character' : 'token';
  const place = kind === 'finish reason' ? `after ${position} tokens` : `at ${part} ${unit} ${position}`;
  const lines = [`first difference: ${kind} ${place}`];
  for (const side of sides) lines.push(`  ${formatSide(side)}  (${formatOrigin(side.origin)})`);
  const hasLogprobs = sides.some((side) => side.logprob !== null);
  if (scoredAfterwards)
    lines.push('  (logprobs scored afterwards; pass --return-logprob for those of the answers themselves)');
  else if (kind === 'token' && !hasLogprobs) lines.push('  (no logprobs: pass --return-logprob)');
  return lines;
}

function formatServer({ url, server, prompts }: TestReport): string {
  const facts = [server.modelPath, server.device, server.attentionBackend, server.numericContract];
  const known = facts.filter((fact) => fact !== null).join(', ');
  const mode = server.deterministic === false ? ', not started with --enable-deterministic-inference' : '';
  return `Server ${url}${known === '' ? '' : ` (${known})`}, prompts as ${prompts}${mode}`;
}

function formatMode({ mode, error, checks, notes, seconds }: ModeResult, style: Style): string[] {
  const tokens = checks.reduce((sum, check) => sum + check.tokens, 0);
  const header = style.strong(mode) + style.dim(` (${seconds.toFixed(1)} s, ${tokens} tokens compared)`);
  const lines = [header, ...notes.map((note) => style.warn(`note: ${note}`))];
  if (error !== null) lines.push(style.bad(`could not test: ${error}`));
  for (const check of checks) {
    const paint = { same: style.good, different: style.bad, 'nothing compared': style.warn }[verdict(check)];
    lines.push(paint(formatCheck(check)));
    for (const difference of check.differences) lines.push(...formatDifference(difference).map((line) => `  ${line}`));
  }
  return lines;
}

function formatSide({ tokenId, tokenText, logprob, excerpt }: DifferenceSide): string {
  if (excerpt !== null) return JSON.stringify(excerpt);
  if (tokenId === null) return 'the answer ends here';
  const text = tokenText === null ? '' : ` ${JSON.stringify(tokenText)}`;
  return `token ${tokenId}${text}${logprob === null ? '' : `, logprob ${logprob}`}`;
}

function formatOrigin({ trial, batchSize, index, role }: Origin): string {
  return `trial ${trial}, batch of ${batchSize}, item ${index}${role === undefined ? '' : `, ${role}`}`;
}
