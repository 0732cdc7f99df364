// The linear kernel: one warp brings stages of x and W through TMA, one to three warpgroups run the k16 chains of a tile,
// in the order of k. Thread blocks stay for the whole launch and walk tiles, the loads running ahead into the next one.
//
// What keeps it at full speed (measured, docs/decisions/0002-linear-on-hopper.md): shapes are compile-time constants and
// every stage is one group of wgmma with at most one more under way, or ptxas drains the tensor cores in each stage;
// elect.sync instead of `lane == 0`, or it loops around each TMA; arrivals at other blocks that release no memory.
#pragma once

#include "core/cluster.cuh"
#include "core/launch.cuh"
#include "core/ptx.cuh"
#include "core/wgmma.cuh"
#include "kernels/linear/linear_launch.cuh"
#include "kernels/linear/linear_store.cuh"

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
  Ring ring;
  int previous = 0;
  float acc[kRowTiles][kColumns / 2];
  for (int i = 0; i < walk.count; ++i) {
#pragma unroll
    for (int t = 0; t < kRowTiles; ++t) {
#pragma unroll
      for (int j = 0; j < kColumns / 2; ++j) acc[t][j] = 0.0f;
    }
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
    }
    wgmma_wait<0>();
#pragma unroll
    for (int t = 0; t < kRowTiles; ++t) pin(acc[t]);
    release(previous);
    const TilePosition at = walk.at(i);
#pragma unroll
    for (int t = 0; t < kRowTiles; ++t) {
      const int row = first_row + t * 64 + warp % 4 * 16;
      if constexpr (kTile.swapped) {
        store_outputs<kColumns>(arguments.output, acc[t], at.output + row, at.token, lane);
      } else {
        const int rows_left = min(arguments.output.rows - at.token, arguments.schedule.x_rows) - row;
        store_tokens<kColumns>(arguments.output, acc[t], at.token + row, rows_left, at.output, lane);
      }
    }
  }
}

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
    if constexpr (kTile.lends_registers()) asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
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
    if constexpr (kTile.lends_registers()) asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
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
