// Launches with programmatic dependent launch: a kernel may start, set itself up and read what no kernel writes (weights)
// while the one before it is still running. The rule that keeps this safe: **every** thread block of **every** kernel
// launched by launch() calls wait_for_inputs() before it touches memory that another kernel writes or reads, and ends after
// it. Then a kernel that has started waiting knows that all kernels before it are done, not only the last one.
//
// What was uploaded (positions, ids, a plan) may be read before the wait behind a kernel that launch_behind_all()
// launched after the upload, or in a graph: that one starts after it, and each later one after the kernel before it has
// started; and an upload that overwrites it waits for all kernels before itself, to their ends. The same holds for what
// publish_and_let_next_start() published, since no later kernel starts before it; such a kernel overwrites it no sooner
// than after its own wait. And for what the kernel before waited for, if that one lets the next start only behind its
// wait.
#pragma once

#include <cuda_runtime.h>

#include "core/cuda_check.h"

namespace detinfer {

/// Waits until the kernels before this one are done and what they wrote is visible.
__device__ __forceinline__ void wait_for_inputs() { asm volatile("griddepcontrol.wait;" ::: "memory"); }

/// Lets the next kernel start as soon as there is room for it. Call it first: it promises nothing about memory.
__device__ __forceinline__ void let_next_start() { asm volatile("griddepcontrol.launch_dependents;" ::: "memory"); }

/// Lets the next kernel start once what this thread block wrote can be seen by all. To be called once, by all threads,
/// behind wait_for_inputs(); read such data past the first-level cache (__ldcg).
__device__ __forceinline__ void publish_and_let_next_start() {
  __threadfence();
  __syncthreads();
  let_next_start();
}

/// Launches a kernel that starts when all work before it in the stream is done. @throws Error kEngineFailed
template <class... Parameters, class... Arguments>
void launch_behind_all(void (*kernel)(Parameters...), dim3 grid, dim3 block, cudaStream_t stream,
                       const Arguments&... arguments) {
  kernel<<<grid, block, 0, stream>>>(Parameters(arguments)...);
  CUDA_CHECK(cudaGetLastError());
}

/// Launches a kernel that may overlap the end of the one before it in the stream. @throws Error kEngineFailed
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
            const Arguments&... arguments) {
  cudaLaunchAttribute attribute;
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = 1;
  CUDA_CHECK(cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...));
}

/// Multiprocessors of the current device; devices of one process are alike.
inline int multiprocessor_count() {
  static const int count = [] {
    int device = 0, value = 0;
    CUDA_CHECK(cudaGetDevice(&device));
    CUDA_CHECK(cudaDeviceGetAttribute(&value, cudaDevAttrMultiProcessorCount, device));
    return value;
  }();
  return count;
}

}  // namespace detinfer
