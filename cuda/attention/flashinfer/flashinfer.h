// The attention backend flashinfer: one persistent kernel over a planned list of prefill tiles and decode splits, with
// instructions that Ampere has too (mma.sync, ldmatrix, cp.async), over a paged KV cache.
#pragma once

#include "attention/backend.h"

namespace detinfer {

/// @param heads at most 16 per KV head @param kv head_dim a multiple of 16 up to 256, page_size 16·2^i
/// @throws Error kUnsupported, kOutOfMemory, kEngineFailed
std::unique_ptr<AttentionBackend> make_flashinfer(const PagedKvLayout& kv, int heads, int64_t pool_pages,
                                                  const AttentionLimits& limits);

}  // namespace detinfer
