// Where the splits of decoded sequences are kept until they are merged.
#pragma once

#include "core/cuda_memory.cuh"
#include "kernels/attention/attention_cuda.h"

namespace detinfer {

class SplitWorkspace {
 public:
  SplitWorkspace(const PagedKvLayout& kv, int heads, const AttentionLimits& limits)
      : rules_(CudaMemory::kDevice, int64_t(limits.decode_splits) * heads),
        sums_(CudaMemory::kDevice, int64_t(limits.decode_splits) * heads * kv.head_dim),
        counters_(CudaMemory::kDevice, int64_t(limits.slices) * kv.kv_heads),
        queue_(CudaMemory::kDevice, 2) {
    CUDA_CHECK(cudaMemset(counters_.data(), 0, size_t(limits.slices) * kv.kv_heads * sizeof(int)));
    CUDA_CHECK(cudaMemset(queue_.data(), 0, 2 * sizeof(int)));
    // The memsets are done before any stream looks.
    CUDA_CHECK(cudaDeviceSynchronize());
  }

  /// Pairs of maximum and sum. [split][heads]
  float2* rules() const { return rules_.data(); }
  /// Sums of values. [split][heads][head_dim]
  float* sums() const { return sums_.data(); }
  /// Finished splits of each sequence and KV head; all 0 between launches.
  int* counters() const { return counters_.data(); }
  /// What a backend deals its work by: two words, 0 between launches.
  int* queue() const { return queue_.data(); }

 private:
  CudaArray<float2> rules_;
  CudaArray<float> sums_;
  CudaArray<int> counters_;
  CudaArray<int> queue_;
};

}  // namespace detinfer
