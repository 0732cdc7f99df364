// The attention backend flashinfer: persistent kernels over planned lists of prefill tiles and decode splits, with
// instructions that Ampere has too (mma.sync, ldmatrix, cp.async), over a paged KV cache.
#pragma once

#include "attention/backend.h"

namespace detinfer {

/// Of what check_attention_backend() lets pass. @throws Error kUnsupported for another GPU, kOutOfMemory, kEngineFailed
std::unique_ptr<AttentionBackend> make_flashinfer(const PagedKvLayout& kv, int heads, const AttentionLimits& limits);

}  // namespace detinfer
