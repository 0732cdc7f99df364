#pragma once

namespace detinfer {

/// Prints what the fa3 attention reaches on the current device.
void bench_attention_cuda();

}  // namespace detinfer
