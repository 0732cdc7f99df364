// The product of an expert layer: four warps bring stages of x and W, two warpgroups run the k16 chains of a tile, in
// the order of k. Thread blocks stay for the whole launch and walk tiles, the loads running ahead into the next one.
// What keeps such a kernel at full speed is written in kernels/linear/linear_kernel.cuh.
#pragma once

#include "kernels/linear/linear_schedule.h"
#include "kernels/moe/expert_load.cuh"
#include "kernels/moe/expert_multiply.cuh"

namespace detinfer::expert {

constexpr int kMultiplyingWarps = ExpertTile::kWarpgroups * 4;

template <int kIndex>
__global__ void __launch_bounds__(ExpertTile::kThreads, 1)
    kernel(const __grid_constant__ CUtensorMap w, const __grid_constant__ Arguments arguments) {
  extern __shared__ uint8_t shared[];
  let_next_start();
  const Memory<kIndex> memory(arguments.schedule, shared);
  const int warp = __shfl_sync(~0u, threadIdx.x / 32, 0), lane = threadIdx.x % 32;
  if (warp == kMultiplyingWarps && elect_one()) {
    for (int stage = 0; stage < memory.stages; ++stage) {
      barrier_init(memory.full(stage), 1 + kLoadingThreads);
      barrier_init(memory.empty(stage), kMultiplyingWarps);
    }
    barrier_init_done();
  }
  if (warp == 0) count_tiles(arguments, memory, lane);
  __syncthreads();
  const TileWalk<kIndex> walk(arguments.schedule, memory);
  if (warp >= kMultiplyingWarps) {
#ifndef NO_LEND
    if constexpr (kExpertTiles[kIndex].entries > 32) asm volatile("setmaxnreg.dec.sync.aligned.u32 120;");
#endif
    produce(arguments, w, memory, walk, warp - kMultiplyingWarps, lane);
  } else {
#ifndef NO_LEND
    if constexpr (kExpertTiles[kIndex].entries > 32) asm volatile("setmaxnreg.inc.sync.aligned.u32 192;");
#endif
    wait_for_inputs();  // before y, which an earlier kernel may still read, is overwritten
    consume(arguments, memory, walk, warp, lane);
  }
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
