// The attention backend fa3 for Hopper (sm_90a): TMA, wgmma for prefill, mma.sync for decoding, over a paged KV cache.
#pragma once

#include "attention/backend.h"

namespace detinfer {

/// Of what check_attention_backend() lets pass. @throws Error kUnsupported for another GPU, kOutOfMemory, kEngineFailed
std::unique_ptr<AttentionBackend> make_fa3(const PagedKvLayout& kv, int heads, int64_t pool_pages,
                                           const AttentionLimits& limits);

}  // namespace detinfer
