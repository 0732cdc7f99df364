// The linear kernel: one warp brings stages of x and W through TMA, one or two warpgroups run the k16 chains of a tile, in
// the order of k. Thread blocks stay for the whole launch and walk tiles, the loads running ahead into the next one.
//
// What keeps it at full speed (docs/decisions/0002-linear-on-hopper.md): shapes are compile-time constants and every stage
// is one group of wgmma with at most one more under way, or ptxas drains the tensor cores in each stage; elect.sync
// instead of `lane == 0`, or it loops around each TMA; arrivals at other blocks that release no memory.
#pragma once

#include "core/launch.cuh"
#include "kernels/linear/linear_load.cuh"
#include "kernels/linear/linear_multiply.cuh"

namespace detinfer::linear {

template <int kIndex>
__global__ void __launch_bounds__(kLinearTiles[kIndex].threads(), 1)
    __cluster_dims__(kLinearTiles[kIndex].cluster(), 1, 1)
    kernel(const __grid_constant__ CUtensorMap x_map, const __grid_constant__ CUtensorMap w_map,
           const __grid_constant__ Arguments arguments) {
  constexpr LinearTile kTile = kLinearTiles[kIndex];
  constexpr int kWarps = kTile.warpgroups() * 4;
  extern __shared__ uint8_t shared[];
  let_next_start();
  const LinearSchedule& schedule = arguments.schedule;
  const Memory<kIndex> memory(schedule, shared);
  const TileWalk<kIndex> walk(schedule, kTile.cluster() > 1 ? cluster_rank() : 0);
  const int warp = __shfl_sync(~0u, threadIdx.x / 32, 0), lane = threadIdx.x % 32;
  const int ahead = min(schedule.stages, arguments.schedule.steps);
  // Weights that other token tiles read as well should stay.
  const Loader<kIndex> loader{&x_map, &w_map, memory, walk, cache_policy(CacheHint::kKeep),
                              cache_policy(schedule.token_tiles == 1 ? CacheHint::kStream : CacheHint::kNormal)};
  if (warp == kWarps && elect_one()) {
    for (int stage = 0; stage < schedule.stages; ++stage) {
      barrier_init(memory.full(stage), 1);
      barrier_init(memory.empty(stage), kWarps * Release<kIndex>::kBlocks);
    }
    barrier_init_done();
    // Weights are written by no kernel: they are on their way while the one before this is still running.
    for (int stage = 0; stage < ahead; ++stage) {
      loader.expect(stage);
      if constexpr (kTile.cluster_tokens == 1) loader.weights(walk.at(0), stage, stage);
    }
  }
  __syncwarp();
  if constexpr (kTile.cluster() > 1) {
    cluster_sync();
  } else {
    __syncthreads();
  }
  if (warp >= kWarps) {
    if constexpr (kTile.lends_registers()) asm volatile("setmaxnreg.dec.sync.aligned.u32 24;");
    if (warp == kWarps && elect_one()) {
      if constexpr (kTile.cluster_tokens > 1) {
        for (int stage = 0; stage < ahead; ++stage) loader.weights(walk.at(0), stage, stage);
      }
      wait_for_inputs();
      Ring ring;
      for (int step = 0; step < ahead; ++step, ring.advance(schedule.stages)) loader.tokens(walk.at(0), step, step);
      for (int i = 0; i < walk.count; ++i) {
        const TilePosition at = walk.at(i);
        for (int step = i == 0 ? ahead : 0; step < arguments.schedule.steps; ++step, ring.advance(schedule.stages)) {
          barrier_wait(memory.empty(ring.stage), ring.parity ^ 1);
          loader.expect(ring.stage);
          loader.weights(at, step, ring.stage);
          loader.tokens(at, step, ring.stage);
        }
      }
    }
    __syncwarp();
  } else {
    if constexpr (kTile.lends_registers()) asm volatile("setmaxnreg.inc.sync.aligned.u32 240;");
    wait_for_inputs();  // before y, which an earlier kernel may still read, is overwritten
    consume<kIndex>(arguments, memory, walk, warp, lane);
  }
  // No block leaves while another may still signal its barriers.
  if constexpr (kTile.cluster() > 1) cluster_sync();
}

template <int kIndex>
void launch_tile(const CUtensorMap& x, const CUtensorMap& w, const Arguments& arguments, cudaStream_t stream) {
  constexpr LinearTile kTile = kLinearTiles[kIndex];
  static const bool prepared = [] {
    CUDA_CHECK(cudaFuncSetAttribute(kernel<kIndex>, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes));
    return true;
  }();
  (void)prepared;
  launch(kernel<kIndex>, dim3(arguments.schedule.clusters * kTile.cluster()), dim3(kTile.threads()),
         arguments.schedule.shared_bytes(), stream, x, w, arguments);
}

}  // namespace detinfer::linear
