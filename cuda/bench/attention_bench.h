#pragma once

namespace detinfer {

/// Prints what decoding and causal prefill by fa3 reach.
void bench_decode_cuda();
void bench_prefill_cuda();

}  // namespace detinfer
