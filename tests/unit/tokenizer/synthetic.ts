/** Small tokenizers of the two kinds that models use, as the contents of their tokenizer.json. */

type Json = Record<string, any>;

/** SentencePiece BPE with byte fallback, as Llama 2 and Mistral have it; merges written as strings. */
export function llama2(): Json {
  const pieces = ['▁', 'h', 'e', 'l', 'o', 'a', 'x', 'é', 'll', 'lo', 'he', 'hell', 'hello', '▁hello', '▁▁'];
  const bytes = Array.from({ length: 256 }, (_, b) => `<0x${b.toString(16).toUpperCase().padStart(2, '0')}>`);
  const vocab = Object.fromEntries(['<unk>', '<s>', '</s>', ...bytes, ...pieces].map((token, id) => [token, id]));
  const special = { single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: ['<unk>', '<s>', '</s>'].map((content, id) => ({ id, content, ...special })),
    normalizer: {
      type: 'Sequence',
      normalizers: [
        { type: 'Prepend', prepend: '▁' },
        { type: 'Replace', pattern: { String: ' ' }, content: '▁' },
      ],
    },
    pre_tokenizer: null,
    post_processor: beginWith('<s>', 1),
    decoder: {
      type: 'Sequence',
      decoders: [
        { type: 'Replace', pattern: { String: '▁' }, content: ' ' },
        { type: 'ByteFallback' },
        { type: 'Fuse' },
        { type: 'Strip', content: ' ', start: 1, stop: 0 },
      ],
    },
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: '<unk>',
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: true,
      byte_fallback: true,
      vocab,
      merges: ['l l', 'l o', 'h e', 'he ll', 'hell o', '▁ hello', '▁ ▁'],
    },
  };
}

/** Byte-level BPE with a begin-of-text token, as Llama 3 has it; merges written as pairs. */
export function llama3(): Json {
  const alphabet: string[] = [];
  for (let byte = 0, next = 256; byte < 256; ++byte) {
    const printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    alphabet.push(String.fromCharCode(printable ? byte : next++));
  }
  const vocab = Object.fromEntries([...alphabet, 'he', 'll', 'hell', 'Ġh'].map((token, id) => [token, id]));
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: ['<|begin_of_text|>', '<|eot_id|>'].map((content, i) => ({
      id: 260 + i,
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: true,
    })),
    normalizer: null,
    pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true },
    post_processor: {
      type: 'Sequence',
      processors: [
        { type: 'ByteLevel', add_prefix_space: true, trim_offsets: false, use_regex: true },
        beginWith('<|begin_of_text|>', 260),
      ],
    },
    decoder: { type: 'ByteLevel', add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: true,
      vocab,
      merges: [
        ['h', 'e'],
        ['l', 'l'],
        ['he', 'll'],
        ['Ġ', 'h'],
      ],
    },
  };
}

function beginWith(token: string, id: number): Json {
  return {
    type: 'TemplateProcessing',
    single: [{ SpecialToken: { id: token, type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
    pair: [{ Sequence: { id: 'A', type_id: 0 } }, { Sequence: { id: 'B', type_id: 1 } }],
    special_tokens: { [token]: { id: token, ids: [id], tokens: [token] } },
  };
}
