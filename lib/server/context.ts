import type { LogLevel, ServerArgs } from '../protocol/server-args.js';
import type { ChatTemplate } from '../tokenizer/chat-template.js';
import type { Frontend } from './frontend.js';

export type Log = (level: LogLevel, message: string) => void;

/** What routes work with. */
export interface ServerContext {
  args: ServerArgs;
  frontend: Frontend;
  /** null: the model has none. */
  chatTemplate: ChatTemplate | null;
  /** Of detinfer. */
  version: string;
  log: Log;
}
