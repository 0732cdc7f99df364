// The attention backend fa3 for Hopper (sm_90a): TMA, wgmma for prefill, mma.sync for decoding, over a paged KV cache.
#pragma once

#include "attention/backend.h"

namespace detinfer {

/// @param heads at most 16 per KV head @param kv head_dim 64 or 128, page_size 16·2^i
/// @throws Error kUnsupported, kOutOfMemory, kEngineFailed
std::unique_ptr<AttentionBackend> make_fa3(const PagedKvLayout& kv, int heads, int64_t pool_pages,
                                           const AttentionLimits& limits);

}  // namespace detinfer
