// Small copies to the device's memory, between the kernels of a stream.
#pragma once

#include <cstdint>

#include "core/launch.cuh"

namespace detinfer {

/// Copies this many words; in a header, so that every file has its own.
static __global__ void copy_words_kernel(uint32_t* to, const uint32_t* from, int count) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) to[i] = from[i];
}

/// Copies behind all work before it in the stream, like cudaMemcpyAsync. A few bytes are copied by a kernel: to go from
/// kernels to a copy engine and back takes longer. @param from pinned memory of the host, or memory of the device
/// @param to, from multiples of 4
inline void upload_async(void* to, const void* from, size_t bytes, cudaStream_t stream) {
  constexpr size_t kMostBytes = 64 << 10;
  constexpr int kThreads = 256;
  if (bytes == 0) return;
  if (bytes > kMostBytes || bytes % 4 != 0) {
    CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream));
    return;
  }
  const int words = int(bytes / 4);
  launch_behind_all(copy_words_kernel, (words + kThreads - 1) / kThreads, kThreads, stream, static_cast<uint32_t*>(to),
                    static_cast<const uint32_t*>(from), words);
}

}  // namespace detinfer
