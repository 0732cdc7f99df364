import { DetinferError } from '../../protocol/errors.js';
import { badValue } from '../errors.js';
import { type Fields, isObject, type JsonObject, string } from '../fields.js';
import { wrongType } from './request.js';

/** A message as chat templates want it: `content` is text, and other fields are as they came. */
export interface ChatMessage extends JsonObject {
  role: string;
  content: string;
}

/** Reads `messages`. @throws DetinferError INVALID_REQUEST, or UNSUPPORTED for content that is no text. */
export function readMessages(fields: Fields): ChatMessage[] {
  const value = fields.raw('messages');
  if (!Array.isArray(value)) throw wrongType('messages', 'a list', value ?? null);
  if (value.length === 0) throw badValue('messages is an empty list; a chat has at least one message.');
  return value.map((message, i) => readMessage(message, `messages[${i}]`));
}

function readMessage(value: unknown, path: string): ChatMessage {
  if (!isObject(value)) throw wrongType(path, 'an object', value);
  const message: ChatMessage = {
    ...value,
    role: string(value['role'], `${path}.role`),
    content: readContent(value['content'] ?? '', `${path}.content`),
  };
  if (Array.isArray(value['tool_calls'])) message['tool_calls'] = value['tool_calls'].map(withParsedArguments);
  return message;
}

/** A string, or a list of text parts, which a space joins as in SGLang. */
function readContent(value: unknown, path: string): string {
  if (!Array.isArray(value)) return string(value, path);
  const texts = value.map((part, i) => {
    const at = `${path}[${i}]`;
    if (!isObject(part)) throw wrongType(at, 'an object', part);
    if (part['type'] !== 'text') {
      throw new DetinferError('UNSUPPORTED', `${at} is no text; this version takes parts of type text alone.`);
    }
    return string(part['text'], `${at}.text`);
  });
  return texts.join(' ');
}

/** The arguments of a call come as JSON in a string; templates write them as JSON themselves. */
function withParsedArguments(call: unknown): unknown {
  if (!isObject(call) || !isObject(call['function'])) return call;
  const { arguments: text } = call['function'];
  if (typeof text !== 'string') return call;
  try {
    return { ...call, function: { ...call['function'], arguments: JSON.parse(text) as unknown } };
  } catch {
    return call;
  }
}
