/** Log-probabilities as the bytes of little-endian f32: 4 bytes per token, bit for bit. */
export function packLogprobs(logprobs: ArrayLike<number>): Buffer {
  const bytes = Buffer.alloc(4 * logprobs.length);
  for (let i = 0; i < logprobs.length; i++) bytes.writeFloatLE(logprobs[i]!, 4 * i);
  return bytes;
}

/** The inverse of packLogprobs. */
export function unpackLogprobs(bytes: Buffer): Float32Array {
  return Float32Array.from({ length: bytes.length / 4 }, (_, i) => bytes.readFloatLE(4 * i));
}
