// What the loading and the multiplying warps of the linear kernel share: the order of tiles, and the stages in shared memory.
#pragma once

#include "core/ptx.cuh"
#include "kernels/linear/linear_launch.cuh"

namespace detinfer::linear {

/// Where a tile of this thread block begins.
struct TilePosition {
  int token, output;
};

template <int kIndex>
struct TileWalk {
  static constexpr LinearTile kTile = kLinearTiles[kIndex];
  const LinearSchedule& schedule;
  int cluster, token_rank, output_rank, count;

  __device__ __forceinline__ TileWalk(const LinearSchedule& s, uint32_t rank) : schedule(s) {
    token_rank = rank % kTile.cluster_tokens;
    output_rank = rank / kTile.cluster_tokens;
    cluster = blockIdx.x / kTile.cluster();
    count = (s.token_tiles * s.output_tiles - cluster + s.clusters - 1) / s.clusters;
  }
  /// The i-th tile of this block. Groups of token tiles go through all outputs together, so that both stay in L2.
  __device__ __forceinline__ TilePosition at(int i) const {
    const int t = cluster + i * schedule.clusters;
    const int per_group = schedule.group * schedule.output_tiles, first = t / per_group * schedule.group;
    const int rest = t % per_group, size = min(schedule.group, schedule.token_tiles - first);
    const int token_tile = first + rest % size, output_tile = rest / size;
    return {(token_tile * kTile.cluster_tokens + token_rank) * kTile.tokens,
            (output_tile * kTile.cluster_outputs + output_rank) * kTile.outputs};
  }
};

/// A place in the ring of stages: its number and the parity of the round.
struct Ring {
  int stage = 0, parity = 0;
  __device__ __forceinline__ void advance(int stages) {
    if (++stage == stages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

/// Shared memory: the stages, each its blocks of x and then of W, then a barrier "full" and one "empty" for each stage.
template <int kIndex>
struct Memory {
  static constexpr LinearTile kTile = kLinearTiles[kIndex];
  uint32_t base, barriers, x_block, stage_bytes;
  int stages;

  __device__ __forceinline__ Memory(const LinearSchedule& s, const void* shared) : stages(s.stages) {
    base = (shared_address(shared) + 1023) & ~1023u;
    x_block = (kTile.short_tokens() ? s.x_rows : kTile.tokens) * 128;
    stage_bytes = kTile.blocks * (x_block + kWBlock);
    barriers = base + stages * stage_bytes;
  }
  static constexpr uint32_t kWBlock = kTile.outputs * 128;
  __device__ __forceinline__ uint32_t x(int stage) const { return base + stage * stage_bytes; }
  __device__ __forceinline__ uint32_t w(int stage) const { return x(stage) + kTile.blocks * x_block; }
  __device__ __forceinline__ uint32_t full(int stage) const { return barriers + 8 * stage; }
  __device__ __forceinline__ uint32_t empty(int stage) const { return barriers + 8 * (stages + stage); }
};

}  // namespace detinfer::linear
