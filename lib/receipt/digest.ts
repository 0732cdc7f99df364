import { createHash } from 'node:crypto';

/** sha256:HEX of bytes, or of a text in UTF-8. */
export function digestOf(data: string | Uint8Array): string {
  return `sha256:${createHash('sha256').update(data).digest('hex')}`;
}
