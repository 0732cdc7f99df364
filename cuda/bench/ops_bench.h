#pragma once

namespace detinfer {

/// The small operations of Qwen3-8B's shape. @param bandwidth bytes per second that this device reads with
void bench_ops_cuda(double bandwidth);

}  // namespace detinfer
