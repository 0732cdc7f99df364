// The attention backend flashinfer: planned lists of prefill tiles and decode splits over a paged KV cache, as fa3, with
// instructions that Ampere has too (mma.sync, ldmatrix, cp.async).
#pragma once

#include "attention/backend.h"

namespace detinfer {

/// Of what check_attention_backend() lets pass. @throws Error kUnsupported for another GPU, kOutOfMemory, kEngineFailed
std::unique_ptr<AttentionBackend> make_flashinfer(const PagedKvLayout& kv, int heads, const AttentionLimits& limits);

}  // namespace detinfer
