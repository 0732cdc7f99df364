// The product of an expert layer: four warps bring stages of x and W, two warpgroups run the k16 chains of a tile, in
// the order of k. Thread blocks stay for the whole launch and walk tiles, the loads running ahead into the next one; or
// pairs of them walk pairs of tiles with the same outputs, each block loading half of the weights for both.
// What keeps such a kernel at full speed is written in kernels/linear/linear_kernel.cuh.
#pragma once

#include "kernels/linear/linear_schedule.h"
#include "kernels/moe/expert_load.cuh"
#include "kernels/moe/expert_multiply.cuh"

namespace detinfer::expert {

constexpr int kMultiplyingWarps = ExpertTile::kWarpgroups * 4;

/// Whether the loading warps lend registers.
template <int kIndex>
constexpr bool kLends = kExpertTiles[kIndex].entries > 32;

/// Registers of a thread: the loading warps lend theirs. A block has what it starts with and no more, or it never ends.
template <int kIndex>
struct Registers {
  static constexpr int kStart = 65536 / ExpertTile::kThreads / 8 * 8;
  static constexpr int kMultiplying = kExpertTiles[kIndex].cluster > 1 ? 216 : 192;
  static constexpr int kLoading = 3 * kStart - 2 * kMultiplying;
  static_assert(ExpertTile::kWarpgroups == 2 && ExpertTile::kLoadingWarps == 4, "three warpgroups");
};

template <int kIndex>
__global__ void __launch_bounds__(ExpertTile::kThreads, 1) __cluster_dims__(kExpertTiles[kIndex].cluster, 1, 1)
    kernel(const __grid_constant__ CUtensorMap w, const __grid_constant__ Arguments arguments) {
  constexpr ExpertTile kTile = kExpertTiles[kIndex];
  extern __shared__ uint8_t shared[];
  let_next_start();
  const Memory<kIndex> memory(arguments.schedule, shared);
  const int warp = __shfl_sync(~0u, threadIdx.x / 32, 0), lane = threadIdx.x % 32;
  if (warp == kMultiplyingWarps && elect_one()) {
    for (int stage = 0; stage < memory.stages; ++stage) {
      barrier_init(memory.full(stage), 1 + kLoadingThreads);
      barrier_init(memory.empty(stage), kMultiplyingWarps * kTile.cluster);
    }
    barrier_init_done();
  }
  if (warp == 0) count_groups(arguments, memory, lane);
  if constexpr (kTile.cluster > 1) {
    cluster_sync();
  } else {
    __syncthreads();
  }
  const TileWalk<kIndex> walk(arguments.schedule, memory);
  if (warp >= kMultiplyingWarps) {
    if constexpr (kLends<kIndex>) {
      asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Registers<kIndex>::kLoading));
    }
    produce(arguments, w, memory, walk, warp - kMultiplyingWarps, lane);
  } else {
    if constexpr (kLends<kIndex>) {
      asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Registers<kIndex>::kMultiplying));
    }
    wait_for_inputs();  // before y, which an earlier kernel may still read, is overwritten
    consume(arguments, memory, walk, warp, lane);
  }
  // No block leaves while another may still signal its barriers.
  if constexpr (kTile.cluster > 1) cluster_sync();
}

template <int kIndex>
void launch_tile(const CUtensorMap& w, const Arguments& arguments, cudaStream_t stream) {
  static const bool prepared = [] {
    CUDA_CHECK(cudaFuncSetAttribute(kernel<kIndex>, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes));
    return true;
  }();
  (void)prepared;
  const ExpertSchedule& schedule = arguments.schedule;
  launch(kernel<kIndex>, schedule.blocks, ExpertTile::kThreads, schedule.shared_bytes(), stream, w, arguments);
}

}  // namespace detinfer::expert
