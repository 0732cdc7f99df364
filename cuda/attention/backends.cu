#include "attention/backend.h"
#include "attention/fa3/fa3.h"
#include "attention/flashinfer/flashinfer.h"
#include "attention/triton/triton.h"
#include "kernels/rope/rope_cuda.h"

namespace detinfer {

void AttentionBackend::run(const RopeArgs& rope, bf16* out, cudaStream_t stream) const {
  if (includes_rope(rope.rows)) return launch(rope, out, nullptr, stream);
  rope_cuda(rope, kv_, stream);
  attend(rope.q, rope.keys, rope.values, out, stream);
}

RopeArgs AttentionBackend::after_rope(const bf16* q, const bf16* keys, const bf16* values) {
  RopeArgs rope;
  // Only read where `qkv` is null.
  rope.q = const_cast<bf16*>(q);
  rope.keys = const_cast<bf16*>(keys);
  rope.values = const_cast<bf16*>(values);
  return rope;
}

std::unique_ptr<AttentionBackend> make_attention_backend(const std::string& name, const PagedKvLayout& kv, int heads,
                                                         int64_t pool_pages, const AttentionLimits& limits) {
  check_attention_backend(name, kv, heads);
  if (name == "flashinfer") return make_flashinfer(kv, heads, limits);
  if (name == "triton") return make_triton(kv, heads, pool_pages, limits);
  return make_fa3(kv, heads, pool_pages, limits);
}

}  // namespace detinfer
