import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import { Tokenizer as HuggingFaceTokenizer } from '@huggingface/tokenizers';

import { DetinferError } from '../protocol/errors.js';
import { decodeUtf8, incompleteTail, IncrementalDetokenizer, type TokenPieces } from './incremental-detokenizer.js';
import { type TokenBytes, tokenBytesOf } from './token-bytes.js';

interface AddedToken {
  id: number;
  content: string;
  special?: boolean;
  lstrip?: boolean;
  rstrip?: boolean;
}

interface TokenizerJson {
  added_tokens?: AddedToken[];
  normalizer?: { type: string } | null;
  decoder?: { type: string } | null;
  [key: string]: unknown;
}

type TokenizerConfig = Record<string, unknown>;

/** Entries of tokenizer_config.json that name special tokens, as a string or as {content}. */
const NAMED_TOKENS = ['bos_token', 'eos_token', 'unk_token', 'sep_token', 'pad_token', 'cls_token', 'mask_token'];

/** Most UTF-16 units that NFC or NFKC can turn into one: four, e.g. a Greek letter with three marks. */
const NORMALIZATION_FACTOR = 4;

function tokenContent(value: unknown): string | null {
  if (typeof value === 'string') return value;
  const content = (value as { content?: unknown } | null | undefined)?.content;
  return typeof content === 'string' ? content : null;
}

/** tokenizer.json's added tokens with those of tokenizer_config.json laid over them, as transformers does. */
function mergeAddedTokens(json: TokenizerJson, config: TokenizerConfig): AddedToken[] {
  const tokens = new Map((json.added_tokens ?? []).map((token) => [token.content, { ...token }]));
  for (const [id, token] of Object.entries(config['added_tokens_decoder'] ?? {})) {
    tokens.set(token.content, { ...tokens.get(token.content), ...token, id: Number(id) });
  }
  const extra = config['additional_special_tokens'];
  for (const value of [...NAMED_TOKENS.map((name) => config[name]), ...(Array.isArray(extra) ? extra : [])]) {
    const token = tokens.get(tokenContent(value) ?? '');
    if (token) token.special = true;
  }
  return [...tokens.values()];
}

/**
 * Text to token ids and back, as Hugging Face's fast tokenizers do it. Encoding is the library's; decoding is done
 * here, on bytes, so that it can be streamed. Spaces are never "cleaned up": transformers dropped that for BPE models
 * because it corrupts text.
 */
export class Tokenizer implements TokenPieces {
  /** tokenizer_config.json's eos_token. */
  readonly eosTokenId: number | null;
  /** UTF-16 units of text that one token can stand for at most; null where that isn't known. */
  readonly maxUnitsPerToken: number | null;
  private readonly library: HuggingFaceTokenizer;
  private readonly codec: TokenBytes;
  private readonly specialIds = new Set<number>();
  private readonly specialIdsByContent = new Map<string, number>();
  private readonly bytesCache: (Uint8Array | undefined)[];
  private readonly textCache: (string | null | undefined)[];

  /**
   * @param json contents of tokenizer.json; merges may be pairs or strings.
   * @param config contents of tokenizer_config.json.
   * @throws DetinferError INVALID_MODEL or UNSUPPORTED.
   */
  constructor(json: TokenizerJson, config: TokenizerConfig) {
    this.codec = tokenBytesOf(json.decoder);
    const added = mergeAddedTokens(json, config);
    const defaults = { normalizer: null, pre_tokenizer: null, post_processor: null };
    try {
      this.library = new HuggingFaceTokenizer({ ...defaults, ...json, added_tokens: added }, config);
    } catch (error) {
      throw new DetinferError('INVALID_MODEL', `tokenizer.json can't be used: ${(error as Error).message}`, {
        cause: error,
      });
    }
    for (const token of added) {
      if (!token.special) continue;
      this.specialIds.add(token.id);
      this.specialIdsByContent.set(token.content, token.id);
    }
    this.eosTokenId = this.library.token_to_id(tokenContent(config['eos_token']) ?? '') ?? null;
    const size = this.library.get_vocab().size;
    this.bytesCache = new Array(size);
    this.textCache = new Array(size);
    this.maxUnitsPerToken = this.longestToken(json, added);
  }

  /**
   * Reads tokenizer.json and, if there is one, tokenizer_config.json.
   * @throws DetinferError INVALID_MODEL when they are missing or damaged, UNSUPPORTED for an unknown kind of tokenizer.
   */
  static load(folder: string): Tokenizer {
    const json = readJson(join(folder, 'tokenizer.json'));
    if (json === null) {
      throw new DetinferError(
        'INVALID_MODEL',
        `${folder} has no tokenizer.json. Give a folder with one as --tokenizer-path, or pass --skip-tokenizer-init ` +
          'to serve token ids only.',
      );
    }
    return new Tokenizer(json, readJson(join(folder, 'tokenizer_config.json')) ?? {});
  }

  /**
   * @param addSpecialTokens also what the model expects around a text (Llama's begin-of-text, say).
   * @throws DetinferError INVALID_REQUEST for text that isn't Unicode (a lone surrogate).
   */
  encode(text: string, addSpecialTokens = true): number[] {
    if (/\p{Surrogate}/u.test(text)) {
      throw new DetinferError('INVALID_REQUEST', 'The text is not valid Unicode: it has a lone surrogate.');
    }
    return this.library.encode(text, { add_special_tokens: addSpecialTokens }).ids;
  }

  /** Text of a sequence of ids; ids that the tokenizer doesn't know have none. */
  decode(ids: readonly number[], skipSpecialTokens = false): string {
    const shown = skipSpecialTokens ? ids.filter((id) => !this.isSpecial(id)) : ids;
    const first = shown.map((id) => this.library.id_to_token(id)).find((token) => token !== undefined);
    const text = decodeUtf8(Buffer.concat(shown.map((id) => this.bytes(id))));
    return first === undefined ? text : this.codec.trimStart(text, first);
  }

  /** Text of tokens that continue a prompt: nothing is trimmed from its start. */
  detokenizer(skipSpecialTokens: boolean): IncrementalDetokenizer {
    return new IncrementalDetokenizer(this, skipSpecialTokens);
  }

  bytes(id: number): Uint8Array {
    return (this.bytesCache[id] ??= this.codec.encode(this.library.id_to_token(id) ?? ''));
  }

  wholeText(id: number): string | null {
    const cached = this.textCache[id];
    if (cached !== undefined) return cached;
    const bytes = this.bytes(id);
    return (this.textCache[id] = incompleteTail(bytes) === 0 ? decodeUtf8(bytes) : null);
  }

  /** The bytes of the first `count` ids; null for special tokens and for ids without text. */
  textTokens(count: number): (Uint8Array | null)[] {
    return Array.from({ length: count }, (_, id) => {
      if (this.isSpecial(id)) return null;
      const bytes = this.bytes(id);
      return bytes.length === 0 ? null : bytes;
    });
  }

  isSpecial(id: number): boolean {
    return this.specialIds.has(id);
  }

  /** Id of the special token that is written as `content`. */
  specialTokenId(content: string): number | undefined {
    return this.specialIdsByContent.get(content);
  }

  private longestToken(json: TokenizerJson, added: AddedToken[]): number | null {
    const normalizer = json.normalizer?.type;
    const shrinksAtWill = normalizer !== undefined && normalizer !== 'NFC' && normalizer !== 'NFKC';
    if (json.decoder?.type !== 'ByteLevel' || shrinksAtWill || added.some((token) => token.lstrip || token.rstrip)) {
      return null;
    }
    let longest = 1;
    for (const token of this.library.get_vocab().keys()) longest = Math.max(longest, token?.length ?? 0);
    return longest * (normalizer === undefined ? 1 : NORMALIZATION_FACTOR);
  }
}

function readJson(path: string): Record<string, unknown> | null {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw new DetinferError('INVALID_MODEL', `${path} can't be read: ${(error as Error).message}`, { cause: error });
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new DetinferError('INVALID_MODEL', `${path} is not JSON: ${(error as Error).message}`, { cause: error });
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new DetinferError('INVALID_MODEL', `${path} must hold a JSON object.`);
  }
  return value as Record<string, unknown>;
}
