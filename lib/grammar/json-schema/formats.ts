import { unsupported } from '../errors.js';
import type { Expr } from '../expr.js';
import { regexExpr } from '../regex.js';

const DATE =
  '(?:[0-9]{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|' +
  '02-(?:0[1-9]|1[0-9]|2[0-8]))|' +
  // Leap years.
  '(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)-02-29)';
const CLOCK = '(?:[01][0-9]|2[0-3]):[0-5][0-9]';
const TIME = `${CLOCK}:[0-5][0-9](?:\\.[0-9]{1,9})?(?:Z|[+\\-]${CLOCK})`;
const BYTE = '(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])';
const LABEL = '[A-Za-z0-9](?:[A-Za-z0-9\\-]{0,30}[A-Za-z0-9])?';

/** Formats of strings, each as a pattern of values that surely have it. */
const FORMATS: Record<string, string> = {
  date: DATE,
  time: TIME,
  'date-time': `${DATE}T${TIME}`,
  uuid: '[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}',
  ipv4: `${BYTE}\\.${BYTE}\\.${BYTE}\\.${BYTE}`,
  email: `[A-Za-z0-9_+\\-]+(?:\\.[A-Za-z0-9_+\\-]+)*@(?:${LABEL}\\.)+[A-Za-z]{2,24}`,
};

/** @throws DetinferError UNSUPPORTED for another format. */
export function formatExpr(format: unknown, path: string): Expr {
  const pattern = typeof format === 'string' && Object.hasOwn(FORMATS, format) ? FORMATS[format]! : null;
  if (pattern === null) {
    const known = Object.keys(FORMATS).join(', ');
    throw unsupported(`The format at ${path} can't be enforced; use one of ${known}, a pattern, or none.`);
  }
  return regexExpr(pattern);
}
