import { exitCode, type TestReport } from '../types.js';

/** The report as JSON text; `exit_code` first, the rest as in TestReport. */
export function toJson(report: TestReport): string {
  return `${JSON.stringify({ exit_code: exitCode(report), ...report }, null, 2)}\n`;
}
