import { DetinferError } from '../protocol/errors.js';

/**
 * How a tokenizer's decoder turns tokens into text: as a function from one token to its bytes. The text of many tokens
 * is the UTF-8 decoding of their joined bytes, which is what makes exact streaming possible.
 */
export interface TokenBytes {
  /** Bytes of one token, in the middle of a text. */
  encode(token: string): Uint8Array;
  /** Characters that the decoder removes from the start of a text, given its first token. */
  trimStart(text: string, firstToken: string): string;
}

interface DecoderConfig {
  type: string;
  decoders?: DecoderConfig[];
  pattern?: { String?: string };
  content?: string;
  start?: number;
  stop?: number;
  replacement?: string;
  prepend_scheme?: string;
  add_prefix_space?: boolean;
}

const utf8 = new TextEncoder();
const keepStart = (text: string): string => text;

/** The reversible alphabet of byte-level BPE: printable bytes stand for themselves, the others for U+0100 and up. */
function byteAlphabet(): Map<string, number> {
  const bytes = new Map<string, number>();
  let next = 256;
  for (let byte = 0; byte < 256; ++byte) {
    const printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    bytes.set(String.fromCharCode(printable ? byte : next++), byte);
  }
  return bytes;
}

const BYTE_OF = byteAlphabet();

/** A token with any character outside the alphabet (an added token with a space, say) stands for itself. */
function encodeByteLevel(token: string): Uint8Array {
  const bytes = new Uint8Array(token.length);
  for (let i = 0; i < token.length; ++i) {
    const byte = BYTE_OF.get(token[i]!);
    if (byte === undefined) return utf8.encode(token);
    bytes[i] = byte;
  }
  return bytes;
}

/** `<0x0A>` is the byte 10. */
function byteOfFallbackToken(token: string): number | null {
  const match = /^<0x([0-9A-Fa-f]{2})>$/.exec(token);
  return match ? Number.parseInt(match[1]!, 16) : null;
}

function countLeading(text: string, content: string, limit: number): number {
  let count = 0;
  while (count < limit && text.startsWith(content, count * content.length)) ++count;
  return count;
}

function unsupported(what: string): DetinferError {
  return new DetinferError(
    'UNSUPPORTED',
    `The tokenizer's decoder ${what} is not supported (byte-level and SentencePiece-style decoders are). ` +
      'Pass --skip-tokenizer-init to serve token ids only.',
  );
}

/** SentencePiece as a decoder of its own: a marker stands for a space. */
function metaspace(config: DecoderConfig): TokenBytes {
  const marker = config.replacement ?? '▁';
  const trims = config.prepend_scheme ? config.prepend_scheme !== 'never' : config.add_prefix_space !== false;
  return {
    encode: (token) => utf8.encode(token.replaceAll(marker, ' ')),
    trimStart: (text, first) => (trims ? text.slice(countLeading(first, marker, first.length)) : text),
  };
}

/** The chain of Llama 2, Mistral and Gemma: Replace, ByteFallback, Fuse and perhaps Strip. */
function chain(steps: DecoderConfig[]): TokenBytes {
  const replacements: [from: string, to: string][] = [];
  let byteFallback = false;
  let fused = false;
  let strip = { content: '', count: 0 };
  for (const step of steps) {
    if (step.type === 'Replace' && !fused && step.pattern?.String) {
      replacements.push([step.pattern.String, step.content ?? '']);
    } else if (step.type === 'ByteFallback' && !fused) {
      byteFallback = true;
    } else if (step.type === 'Fuse') {
      fused = true;
    } else if (step.type === 'Strip' && fused && !step.stop && step.content) {
      strip = { content: step.content, count: step.start ?? 0 };
    } else {
      throw unsupported(`step ${step.type} in a sequence of ${steps.map((s) => s.type).join(', ')}`);
    }
  }
  return {
    encode(token) {
      const byte = byteFallback ? byteOfFallbackToken(token) : null;
      if (byte !== null) return Uint8Array.of(byte);
      return utf8.encode(replacements.reduce((text, [from, to]) => text.replaceAll(from, to), token));
    },
    trimStart: (text) => text.slice(countLeading(text, strip.content, strip.count) * strip.content.length),
  };
}

/**
 * Reads the `decoder` of a tokenizer.json.
 * @throws DetinferError UNSUPPORTED for a decoder whose text is not a concatenation of its tokens' bytes.
 */
export function tokenBytesOf(decoder: unknown): TokenBytes {
  const config = decoder as DecoderConfig | null;
  switch (config?.type) {
    case 'ByteLevel':
      return { encode: encodeByteLevel, trimStart: keepStart };
    case 'Metaspace':
      return metaspace(config);
    case 'Sequence': {
      const steps = config.decoders ?? [];
      return steps.length === 1 ? tokenBytesOf(steps[0]) : chain(steps);
    }
    default:
      throw unsupported(config ? config.type : 'null');
  }
}
