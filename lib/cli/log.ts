import chalk from 'chalk';
import type { LogFormat, LogLevel } from '../protocol/server-args.js';
import type { Log } from '../server/context.js';

const LEVELS: LogLevel[] = ['debug', 'info', 'warning', 'error'];

/**
 * Lines like SGLang's: the local time, a level where it matters, the message; or one JSON object per line. Everything
 * goes to one stream, a server's to standard output, so that one redirection keeps its whole log.
 * @param least messages below this level are dropped
 */
export function createLog(
  least: LogLevel,
  format: LogFormat = 'text',
  stream: NodeJS.WriteStream = process.stdout,
): Log {
  const line = format === 'json' ? jsonLine : textLine;
  return (level, message, fields = {}) => {
    if (LEVELS.indexOf(level) < LEVELS.indexOf(least)) return;
    stream.write(`${line(level, message, fields)}\n`);
  };
}

function textLine(level: LogLevel, message: string): string {
  return `${chalk.dim(`[${timestamp(new Date())}]`)} ${coloured(level, message)}`;
}

function jsonLine(level: LogLevel, message: string, fields: Record<string, unknown>): string {
  return JSON.stringify({ time: new Date().toISOString(), level, message, ...fields });
}

/** Local time as 2026-01-31 23:59:59. */
export function timestamp(date: Date): string {
  const two = (value: number): string => String(value).padStart(2, '0');
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return `${day} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

function coloured(level: LogLevel, message: string): string {
  switch (level) {
    case 'error':
      return `${chalk.red('ERROR')} ${message}`;
    case 'warning':
      return `${chalk.yellow('WARNING')} ${message}`;
    case 'debug':
      return chalk.dim(message);
    case 'info':
      return message;
  }
}
