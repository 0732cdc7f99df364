// The attention backend triton for Hopper (sm_90a): kernels in Gluon, Triton's language of explicit layouts, compiled
// by scripts/compile-triton.py, over a paged KV cache.
#pragma once

#include "attention/backend.h"

namespace detinfer {

/// Of what check_attention_backend() lets pass. @throws Error kUnsupported for another GPU, kOutOfMemory, kEngineFailed
std::unique_ptr<AttentionBackend> make_triton(const PagedKvLayout& kv, int heads, int64_t pool_pages,
                                              const AttentionLimits& limits);

}  // namespace detinfer
