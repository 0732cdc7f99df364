import type { LogLevel, ServerArgs } from '../protocol/server-args.js';
import type { ChatTemplate } from '../tokenizer/chat-template.js';
import type { Frontend } from './frontend.js';
import type { Metrics } from './metrics.js';

/** @param fields what a log in JSON has beside the message. */
export type Log = (level: LogLevel, message: string, fields?: Record<string, unknown>) => void;

/** What routes work with. */
export interface ServerContext {
  args: ServerArgs;
  frontend: Frontend;
  /** Null without --enable-metrics. */
  metrics: Metrics | null;
  /** null: the model has none. */
  chatTemplate: ChatTemplate | null;
  /** Of detinfer. */
  version: string;
  log: Log;
}
