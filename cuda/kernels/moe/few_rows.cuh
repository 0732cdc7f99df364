// What the two kernels of an expert layer for few rows share. Each is a stream of weights from memory to the tensor cores:
// some warps ask for stages by TMA, two warpgroups run the chains of 128 rows of W by 8 rows of x.
#pragma once

#include <algorithm>

#include "core/cluster.cuh"
#include "core/launch.cuh"
#include "core/wgmma.cuh"
#include "kernels/moe/expert_walk.cuh"
#include "kernels/moe/few_rows.h"

namespace detinfer::few_rows {

using expert::Ring;

constexpr int kWarpgroups = 2, kMultiplyingWarps = kWarpgroups * 4;

__host__ __device__ constexpr int ceil_div(int a, int b) { return (a + b - 1) / b; }

/// The weights that a kernel has under way.
struct StageShape {
  /// Bytes of a stage's rows of W, each 128.
  int w_bytes;
  int count;

  static constexpr int kXBytes = 1024;
  /// All of a multiprocessor's would ask for more than memory delivers at once, and unevenly.
  static constexpr int kMostBytes = 180 * 1024;

  /// @param w_rows 128 at most
  explicit StageShape(int w_rows) : w_bytes(w_rows * 128), count(0) {
    count = (kMostBytes - shared_bytes()) / (w_bytes + kXBytes + 16);
  }
  /// Dynamic shared memory: 1024 to align; the products read 128 rows of W where the last stage may have fewer.
  int shared_bytes() const { return 1024 + count * (w_bytes + kXBytes + 16) + 128 * 128 - w_bytes; }
};

/// Shared memory: the stages of W, those of x, which are 8 rows of 128 bytes, and for each a barrier "full" and one
/// "empty". A warpgroup reads 64 rows of W where a stage may have fewer: products that nobody looks at.
struct Stages {
  uint32_t w_start, x_start, barriers, w_bytes;
  int count;

  __device__ __forceinline__ Stages(const StageShape& shape, const void* shared)
      : w_bytes(shape.w_bytes), count(shape.count) {
    w_start = (shared_address(shared) + 1023) & ~1023u;
    x_start = w_start + count * w_bytes;
    barriers = x_start + count * StageShape::kXBytes;
  }
  /// By one thread, before a __syncthreads(). @param loading_warps each expects what it asks for
  __device__ __forceinline__ void init(int loading_warps) const {
    for (int stage = 0; stage < count; ++stage) {
      barrier_init(full(stage), loading_warps);
      barrier_init(empty(stage), kMultiplyingWarps);
    }
    barrier_init_done();
  }
  __device__ __forceinline__ uint32_t w(int stage) const { return w_start + stage * w_bytes; }
  __device__ __forceinline__ uint32_t x(int stage) const { return x_start + stage * StageShape::kXBytes; }
  __device__ __forceinline__ uint32_t full(int stage) const { return barriers + 8 * stage; }
  __device__ __forceinline__ uint32_t empty(int stage) const { return barriers + 8 * (count + stage); }
};

/// Asks for a descriptor, so that the first load that uses it need not wait for it as well.
__device__ __forceinline__ void prefetch(const CUtensorMap& map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}

/// A thread's place in its block, and the block's stages, which are ready for use once all its threads have made theirs.
struct Place {
  Stages stages;
  int warp, lane;

  __device__ __forceinline__ Place(const StageShape& shape, const void* shared, const CUtensorMap& x,
                                   const CUtensorMap& w, int loading_warps)
      : stages(shape, shared), warp(__shfl_sync(~0u, threadIdx.x / 32, 0)), lane(threadIdx.x % 32) {
    if (warp == kMultiplyingWarps && elect_one()) {
      prefetch(x);
      prefetch(w);
      stages.init(loading_warps);
    }
    __syncthreads();
  }
};

/// The chains of a warpgroup's 64 rows over the next `steps` stages.
__device__ __forceinline__ void multiply(float (&acc)[4], const Stages& stages, Ring& ring, int steps, int warpgroup,
                                         int lane) {
  int previous = 0;
#pragma unroll
  for (float& sum : acc) sum = 0.0f;
  for (int step = 0; step < steps; ++step) {
    barrier_wait(stages.full(ring.stage), ring.parity);
    const uint64_t a = k_major_descriptor(stages.w(ring.stage) + warpgroup * 64 * 128, 1024);
    const uint64_t b = k_major_descriptor(stages.x(ring.stage), 1024);
    wgmma_fence();
#pragma unroll
    for (int k16 = 0; k16 < 4; ++k16) wgmma_step<8>(acc, a + k16 * 32 / 16, b + k16 * 32 / 16);
    wgmma_commit();
    wgmma_wait<1>();
    if (step > 0 && lane == 0) barrier_arrive(stages.empty(previous));
    previous = ring.stage;
    ring.advance(stages.count);
  }
  wgmma_wait<0>();
  pin(acc);
  if (lane == 0) barrier_arrive(stages.empty(previous));
}

/// Launches a kernel of these on `tiles`. @tparam kKernel takes descriptors of x and of W, and what it has as `a`
template <auto kKernel, class Arguments>
void launch_tiles(int tiles, int loading_warps, const CUtensorMap& x, const CUtensorMap& w, const Arguments& a,
                  cudaStream_t stream) {
  static const bool prepared = [] {
    CUDA_CHECK(cudaFuncSetAttribute(kKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, StageShape::kMostBytes));
    return true;
  }();
  (void)prepared;
  launch(kKernel, std::min(tiles, multiprocessor_count()), (kMultiplyingWarps + loading_warps) * 32,
         a.stages.shared_bytes(), stream, x, w, a);
}

}  // namespace detinfer::few_rows
