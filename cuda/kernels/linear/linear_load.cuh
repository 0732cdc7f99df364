// The loading warp's part of the linear kernel.
#pragma once

#include "core/cluster.cuh"
#include "kernels/linear/linear_walk.cuh"

namespace detinfer::linear {

/// The loading thread's part. Where blocks of a cluster share an operand each brings a part of its rows to all.
template <int kIndex>
struct Loader {
  static constexpr LinearTile kTile = kLinearTiles[kIndex];
  const CUtensorMap *x_map, *w_map;
  const Memory<kIndex>& memory;
  const TileWalk<kIndex>& walk;
  uint64_t x_policy, w_policy;

  __device__ __forceinline__ void weights(TilePosition at, int step, int stage) const {
    constexpr int kRows = kTile.outputs / kTile.cluster_tokens;
    constexpr uint32_t kRanks = (1 << kTile.cluster_tokens) - 1;
    const int first = walk.token_rank * kRows;
#pragma unroll
    for (int b = 0; b < kTile.blocks; ++b) {
      const uint32_t to = memory.w(stage) + b * memory.kWBlock + first * 128;
      const int column = (step * kTile.blocks + b) * 64;
      if constexpr (kTile.cluster_tokens == 1) {
        tma_load_2d(to, w_map, column, at.output, memory.full(stage), w_policy);
      } else {
        tma_load_2d(to, w_map, column, at.output + first, memory.full(stage), w_policy,
                    uint16_t(kRanks << (walk.output_rank * kTile.cluster_tokens)));
      }
    }
  }

  __device__ __forceinline__ void tokens(TilePosition at, int step, int stage) const {
    constexpr int kRows = kTile.tokens / kTile.cluster_outputs;
    const int first = walk.output_rank * kRows;
#pragma unroll
    for (int b = 0; b < kTile.blocks; ++b) {
      const uint32_t to = memory.x(stage) + b * memory.x_block + first * 128;
      const int column = (step * kTile.blocks + b) * 64;
      if constexpr (kTile.cluster_outputs == 1) {
        tma_load_2d(to, x_map, column, at.token, memory.full(stage), x_policy);
      } else {
        uint32_t ranks = 0;
#pragma unroll
        for (int i = 0; i < kTile.cluster_outputs; ++i) ranks |= 1 << (i * kTile.cluster_tokens);
        tma_load_2d(to, x_map, column, at.token + first, memory.full(stage), x_policy,
                    uint16_t(ranks << walk.token_rank));
      }
    }
  }

  __device__ __forceinline__ void expect(int stage) const { barrier_expect(memory.full(stage), memory.stage_bytes); }
};

}  // namespace detinfer::linear
