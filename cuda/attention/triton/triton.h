// The attention backend triton for Hopper (sm_90a): kernels in Gluon, Triton's language of explicit layouts, compiled
// by scripts/compile-triton.py, over a paged KV cache.
#pragma once

#include "attention/backend.h"

namespace detinfer {

/// @param heads at most 16 per KV head @param kv head_dim 64 or 128, page_size 16·2^i
/// @throws Error kUnsupported, kOutOfMemory, kEngineFailed
std::unique_ptr<AttentionBackend> make_triton(const PagedKvLayout& kv, int heads, int64_t pool_pages,
                                              const AttentionLimits& limits);

}  // namespace detinfer
