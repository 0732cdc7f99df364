// The multiplying warps' part of the linear kernel.
#pragma once

#include "core/cluster.cuh"
#include "core/wgmma.cuh"
#include "kernels/linear/linear_pending.cuh"
#include "kernels/linear/linear_walk.cuh"

namespace detinfer::linear {

/// A consumer warp reports a freed stage to every block that writes into it, one lane each.
template <int kIndex>
struct Release {
  static constexpr LinearTile kTile = kLinearTiles[kIndex];
  static constexpr int kBlocks = kTile.cluster_tokens + kTile.cluster_outputs - 1;
  const Memory<kIndex>& memory;
  int lane, rank;

  __device__ __forceinline__ Release(const Memory<kIndex>& m, const TileWalk<kIndex>& walk, int lane)
      : memory(m), lane(lane) {
    rank = walk.token_rank + kTile.cluster_tokens * lane;
    if (lane >= kTile.cluster_outputs) {
      const int i = lane - kTile.cluster_outputs;
      rank = walk.output_rank * kTile.cluster_tokens + i + (i >= walk.token_rank);
    }
  }
  __device__ __forceinline__ void operator()(int stage) const {
    if (lane >= kBlocks) return;
    if constexpr (kTile.cluster() == 1) {
      barrier_arrive(memory.empty(stage));
    } else {
      barrier_arrive_remote(memory.empty(stage), rank);
    }
  }
};

template <int kIndex>
__device__ __forceinline__ void consume(const Arguments& arguments, const Memory<kIndex>& memory,
                                        const TileWalk<kIndex>& walk, int warp, int lane) {
  constexpr LinearTile kTile = kLinearTiles[kIndex];
  constexpr int kRowTiles = kTile.row_tiles(), kColumns = kTile.columns();
  // A box of 8 tokens stands for all groups of 8 rows: rows that nobody stores.
  const uint32_t row_groups = kTile.short_tokens() && memory.x_block == 1024 ? 0 : 1024;
  const uint32_t row_block = kTile.swapped ? memory.kWBlock : memory.x_block;
  const uint32_t column_block = kTile.swapped ? memory.x_block : memory.kWBlock;
  const int first_row = warp / 4 * kRowTiles * 64;
  const Release<kIndex> release(memory, walk, lane);
  const int warp_row = first_row + warp % 4 * 16;
  Pending<kTile.defers() ? kColumns : 64> pending;
  const bool deferring = kTile.defers(arguments.output.kind, arguments.output.n, arguments.schedule.steps);
  Ring ring;
  int previous = 0;
  TilePosition at = {};
  float acc[kRowTiles][kColumns / 2];
  for (int i = 0; i < walk.count; ++i) {
#pragma unroll
    for (int t = 0; t < kRowTiles; ++t) {
#pragma unroll
      for (int j = 0; j < kColumns / 2; ++j) acc[t][j] = 0.0f;
    }
    const TilePosition before = at;
    // ptxas must see that this is uniform, or it takes wgmma's descriptors out of uniform registers.
    const int parts = deferring && i > 0 ? kTile.pending_parts() : 0;
    for (int step = 0; step < arguments.schedule.steps; ++step) {
      barrier_wait(memory.full(ring.stage), ring.parity);
      const uint32_t rows = (kTile.swapped ? memory.w(ring.stage) : memory.x(ring.stage)) + first_row * 128;
      const uint32_t columns = kTile.swapped ? memory.x(ring.stage) : memory.w(ring.stage);
      const uint64_t a = k_major_descriptor(rows, row_groups), b = k_major_descriptor(columns, 1024);
      wgmma_fence();
#pragma unroll
      for (int block = 0; block < kTile.blocks; ++block) {
#pragma unroll
        for (int k16 = 0; k16 < 4; ++k16) {
#pragma unroll
          for (int t = 0; t < kRowTiles; ++t) {
            wgmma_step<kColumns>(acc[t], a + (block * row_block + t * 8192 + k16 * 32) / 16,
                                 b + (block * column_block + k16 * 32) / 16);
          }
        }
      }
      wgmma_commit();
      wgmma_wait<1>();
      if (step > 0) release(previous);
      previous = ring.stage;
      ring.advance(memory.stages);
      if (step == 0) at = walk.at(i);  // while the tensor cores are busy: it divides
      if constexpr (kTile.defers()) {
        if (step < parts) {
          const int token = before.token + warp_row;
          pending.store_part(arguments.output, step, token, arguments.output.rows - token, before.output, lane);
        }
      }
    }
    wgmma_wait<0>();
#pragma unroll
    for (int t = 0; t < kRowTiles; ++t) pin(acc[t]);
    release(previous);
    if constexpr (kTile.defers()) {
      if (deferring && i + 1 < walk.count) {
        pending.take(arguments.output, acc[0], at.output, lane);
        continue;
      }
    }
#pragma unroll
    for (int t = 0; t < kRowTiles; ++t) {
      const int row = warp_row + t * 64;
      if constexpr (kTile.swapped) {
        store_outputs<kColumns>(arguments.output, acc[t], at.output + row, at.token, lane);
      } else {
        const int rows_left = min(arguments.output.rows - at.token, arguments.schedule.x_rows) - row;
        store_tokens<kColumns>(arguments.output, acc[t], at.token + row, rows_left, at.output, lane);
      }
    }
  }
}

}  // namespace detinfer::linear
