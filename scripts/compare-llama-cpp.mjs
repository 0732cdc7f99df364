#!/usr/bin/env node
// Decodes and prefills a model of the same shape with llama.cpp, for comparison with `detinfer bench decode`.
//   npm install --no-save node-llama-cpp
//   node scripts/compare-llama-cpp.mjs tests/fixtures/qwen3-0.6b-shape [--threads 2] [--prompt 256] [--tokens 32]
// The weights are random bf16 in a GGUF file in the system's folder for temporary files; llama.cpp's speed does not
// depend on their values.
import { createWriteStream, existsSync, readFileSync, renameSync } from 'node:fs';
import { once } from 'node:events';
import { cpus, tmpdir } from 'node:os';
import { basename, join, resolve } from 'node:path';
import { parseArgs } from 'node:util';

const BF16 = 30;
const F32 = 0;
const ALIGNMENT = 32;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    threads: { type: 'string', default: String(cpus().length) },
    prompt: { type: 'string', default: '256' },
    tokens: { type: 'string', default: '32' },
  },
});
if (positionals.length !== 1) {
  console.error('usage: node scripts/compare-llama-cpp.mjs MODEL_FOLDER [--threads N] [--prompt N] [--tokens N]');
  process.exit(2);
}

/** Tensors of a dense Qwen3 with tied embeddings, dimensions innermost first, as GGUF wants them. */
function tensorsOf(c) {
  const q = c.num_attention_heads * c.head_dim;
  const kv = c.num_key_value_heads * c.head_dim;
  const tensors = [
    { name: 'token_embd.weight', dims: [c.hidden_size, c.vocab_size], type: BF16 },
    { name: 'output_norm.weight', dims: [c.hidden_size], type: F32 },
  ];
  for (let i = 0; i < c.num_hidden_layers; i++) {
    const add = (name, dims, type = BF16) => tensors.push({ name: `blk.${i}.${name}.weight`, dims, type });
    add('attn_norm', [c.hidden_size], F32);
    add('attn_q', [c.hidden_size, q]);
    add('attn_k', [c.hidden_size, kv]);
    add('attn_v', [c.hidden_size, kv]);
    add('attn_q_norm', [c.head_dim], F32);
    add('attn_k_norm', [c.head_dim], F32);
    add('attn_output', [q, c.hidden_size]);
    add('ffn_norm', [c.hidden_size], F32);
    add('ffn_gate', [c.hidden_size, c.intermediate_size]);
    add('ffn_up', [c.hidden_size, c.intermediate_size]);
    add('ffn_down', [c.intermediate_size, c.hidden_size]);
  }
  return tensors;
}

/** The header's encoding: little endian, strings with a 64-bit length. */
const u32 = (x) => Buffer.from(Uint32Array.of(x).buffer);
const u64 = (x) => Buffer.from(BigUint64Array.of(BigInt(x)).buffer);
const f32 = (x) => Buffer.from(Float32Array.of(x).buffer);
const text = (s) => Buffer.concat([u64(Buffer.byteLength(s)), Buffer.from(s)]);
const asU32 = (x) => Buffer.concat([u32(4), u32(x)]);
const asF32 = (x) => Buffer.concat([u32(6), f32(x)]);
const asText = (s) => Buffer.concat([u32(8), text(s)]);
const asList = (type, items) => Buffer.concat([u32(9), u32(type), u64(items.length), ...items]);

function metadataOf(c) {
  const tokens = Array.from({ length: c.vocab_size }, (_, i) => text(`t${i}`));
  return {
    'general.architecture': asText('qwen3'),
    'qwen3.block_count': asU32(c.num_hidden_layers),
    'qwen3.context_length': asU32(c.max_position_embeddings),
    'qwen3.embedding_length': asU32(c.hidden_size),
    'qwen3.feed_forward_length': asU32(c.intermediate_size),
    'qwen3.attention.head_count': asU32(c.num_attention_heads),
    'qwen3.attention.head_count_kv': asU32(c.num_key_value_heads),
    'qwen3.attention.key_length': asU32(c.head_dim),
    'qwen3.attention.value_length': asU32(c.head_dim),
    'qwen3.attention.layer_norm_rms_epsilon': asF32(c.rms_norm_eps),
    'qwen3.rope.freq_base': asF32(c.rope_theta),
    'tokenizer.ggml.model': asText('gpt2'),
    'tokenizer.ggml.pre': asText('qwen2'),
    'tokenizer.ggml.tokens': asList(8, tokens),
    'tokenizer.ggml.token_type': asList(5, tokens.map(() => u32(1))),
    'tokenizer.ggml.merges': asList(8, [text('t 0')]),
    'tokenizer.ggml.eos_token_id': asU32(c.eos_token_id),
  };
}

const elements = ({ dims }) => dims.reduce((product, dim) => product * dim, 1);
const bytesOf = (tensor) => elements(tensor) * (tensor.type === BF16 ? 2 : 4);
const padding = (bytes) => (ALIGNMENT - (bytes % ALIGNMENT)) % ALIGNMENT;

async function writeGguf(path, config) {
  const tensors = tensorsOf(config);
  const metadata = Object.entries(metadataOf(config));
  let offset = 0;
  const infos = tensors.map((tensor) => {
    const info = [text(tensor.name), u32(tensor.dims.length), ...tensor.dims.map(u64), u32(tensor.type), u64(offset)];
    offset += bytesOf(tensor) + padding(bytesOf(tensor));
    return Buffer.concat(info);
  });
  const header = Buffer.concat([
    Buffer.from('GGUF'),
    u32(3),
    u64(tensors.length),
    u64(metadata.length),
    ...metadata.flatMap(([key, value]) => [text(key), value]),
    ...infos,
  ]);
  const file = createWriteStream(`${path}.part`);
  const write = async (data) => {
    if (!file.write(data)) await once(file, 'drain');
  };
  await write(Buffer.concat([header, Buffer.alloc(padding(header.length))]));
  for (const tensor of tensors) {
    await write(tensor.type === F32 ? Buffer.concat(new Array(elements(tensor)).fill(f32(1))) : randomBf16(elements(tensor)));
    await write(Buffer.alloc(padding(bytesOf(tensor))));
  }
  file.end();
  await once(file, 'finish');
  renameSync(`${path}.part`, path);
}

/** Small values of both signs, from a linear congruential generator. */
function randomBf16(count) {
  const out = new Uint16Array(count);
  let state = count >>> 0;
  for (let i = 0; i < count; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    out[i] = 0x3c00 | ((state >>> 16) & 0x80ff);
  }
  return Buffer.from(out.buffer);
}

async function measure(path, threads, promptTokens, newTokens) {
  const { getLlama } = await import('node-llama-cpp');
  const llama = await getLlama({ gpu: false, build: 'never', maxThreads: threads });
  const model = await llama.loadModel({ modelPath: path, useMmap: false });
  const context = await model.createContext({
    contextSize: promptTokens + newTokens + 16,
    batchSize: promptTokens,
    threads: { ideal: threads, min: threads },
  });
  const sequence = context.getSequence();
  const prompt = Array.from({ length: promptTokens }, (_, i) => 1000 + i);
  const prefills = [];
  const decodes = [];
  for (let run = 0; run < 3; run++) {
    await sequence.clearHistory();
    const start = performance.now();
    let first = 0;
    let count = 0;
    for await (const _ of sequence.evaluate(prompt, { temperature: 0 })) {
      if (count === 0) first = performance.now();
      if (++count > newTokens) break;
    }
    prefills.push(promptTokens / ((first - start) / 1000));
    decodes.push((count - 1) / ((performance.now() - first) / 1000));
  }
  await llama.dispose();
  return { prefill: Math.max(...prefills), decode: Math.max(...decodes) };
}

const folder = resolve(positionals[0]);
const config = JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8'));
const path = join(tmpdir(), `${basename(folder)}-bf16.gguf`);
if (!existsSync(path)) await writeGguf(path, config);
const threads = Number(values.threads);
const result = await measure(path, threads, Number(values.prompt), Number(values.tokens));
console.log(`llama.cpp, bf16, ${threads} threads: decode ${result.decode.toFixed(1)} tok/s, prefill ${result.prefill.toFixed(1)} tok/s`);
process.exit(0);
