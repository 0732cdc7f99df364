// The loading warps' part of the expert kernel: TMA brings weights; rows of x, which lie anywhere, are copied 16 bytes at
// a time to where TMA would have put them.
#pragma once

#include "core/cluster.cuh"
#include "core/launch.cuh"
#include "kernels/moe/expert_walk.cuh"

namespace detinfer::expert {

constexpr int kLoadingThreads = ExpertTile::kLoadingWarps * 32;

/// 16 bytes, or as many zeros.
__device__ __forceinline__ void copy_16(uint32_t to, const void* from, bool exists) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(exists ? 16 : 0) : "memory");
}

/// Arrives once the copies of this thread so far are done. Who reads them by wgmma needs a fence behind the barrier: one
/// here would wait for all copies under way.
__device__ __forceinline__ void barrier_arrive_behind_copies(uint32_t barrier) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(barrier) : "memory");
}

template <int kIndex>
class Loader {
 public:
  __device__ __forceinline__ Loader(const Arguments& arguments, const CUtensorMap& w, const Memory<kIndex>& memory,
                                    int rank, int thread)
      : arguments_(arguments),
        w_(w),
        memory_(memory),
        rank_(rank),
        chunk_(thread % kChunks),
        first_row_(thread / kChunks) {
    policy_ = cache_policy(arguments.stream ? CacheHint::kStream : CacheHint::kNormal);
  }

  /// By one thread. Each block of a cluster brings a part of the outputs to all.
  __device__ __forceinline__ void weights(const TilePosition& at, int step, int stage) const {
    constexpr ExpertTile kTile = kExpertTiles[kIndex];
    barrier_expect(memory_.full(stage), arguments_.schedule.outputs * 128);
    const int rows = arguments_.schedule.outputs / kTile.cluster, first = rank_ * rows;
    const uint32_t to = memory_.w(stage) + first * 128;
    const int row = at.expert * arguments_.n + at.output + first;
    if constexpr (kTile.cluster == 1) {
      tma_load_2d(to, &w_, step * 64, row, memory_.full(stage), policy_);
    } else {
      tma_load_2d(to, &w_, step * 64, row, memory_.full(stage), policy_, (1 << kTile.cluster) - 1);
    }
  }

  /// Looks up where this thread's rows of the next tile are, for next_tile().
  __device__ __forceinline__ void find_rows(const TilePosition& at) {
    next_count_ = at.count;
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const int row = first_row_ + i * kRowStep;
      if (row >= next_count_) break;
      const int entry = at.entry + row;
      next_rows_[i] = arguments_.row ? __ldcg(arguments_.row + entry) : entry;
    }
  }
  __device__ __forceinline__ void next_tile() {
    count_ = next_count_;
#pragma unroll
    for (int i = 0; i < kRows; ++i) rows_[i] = next_rows_[i];
  }

  __device__ __forceinline__ void entries(int step, int stage) const {
    const int column = step * 64 + chunk_ * 8;
    const bool exists = column < arguments_.k;
    const bf16* const x = arguments_.x + (exists ? column : 0);
    const uint32_t to = memory_.x(stage) + first_row_ * 128 + (chunk_ ^ (first_row_ % 8)) * 16;
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      if (first_row_ + i * kRowStep >= count_) break;
      copy_16(to + i * kRowStep * 128, x + int64_t(rows_[i]) * arguments_.k, exists);
    }
    barrier_arrive_behind_copies(memory_.full(stage));
  }

 private:
  /// Threads that share a row of a stage, which is 128 bytes; a thread's rows are kRowStep apart.
  static constexpr int kChunks = 8, kRowStep = kLoadingThreads / kChunks;
  static constexpr int kRows = kExpertTiles[kIndex].entries / kRowStep;

  const Arguments& arguments_;
  const CUtensorMap& w_;
  const Memory<kIndex>& memory_;
  uint64_t policy_;
  int rank_, chunk_, first_row_, count_, next_count_;
  int32_t rows_[kRows], next_rows_[kRows];
};

/// @param warp among the loading ones
template <int kIndex>
__device__ __forceinline__ void produce(const Arguments& arguments, const CUtensorMap& w, const Memory<kIndex>& memory,
                                        const TileWalk<kIndex>& walk, int warp, int lane) {
  const int steps = arguments.schedule.steps, stages = memory.stages;
  Loader<kIndex> loader(arguments, w, memory, walk.rank, warp * 32 + lane);
  int tile = walk.begin, begun = min(stages, steps);
  TilePosition at = {};
  // Weights are written by no kernel, and routes may be read early: the first stages are on their way while the kernels
  // before this one are still running.
  if (tile < walk.count) {
    at = walk.at(tile);
    loader.find_rows(at);
    if (warp == 0 && elect_one()) {
      for (int stage = 0; stage < begun; ++stage) loader.weights(at, stage, stage);
    }
  }
  __syncwarp();
  wait_for_inputs();
  Ring ring;
  if (tile >= walk.count) return;
  while (true) {
    loader.next_tile();
    tile += walk.step;
    TilePosition next = {};
    for (int step = 0; step < steps; ++step, ring.advance(stages)) {
      if (begun > 0) {
        --begun;
      } else {
        barrier_wait(memory.empty(ring.stage), ring.parity ^ 1);
        if (warp == 0 && elect_one()) loader.weights(at, step, ring.stage);
        __syncwarp();
      }
      loader.entries(step, ring.stage);
      // Where the next tile's rows are is on its way while this one's are copied.
      if (step == 0 && tile < walk.count) {
        next = walk.at(tile);
        loader.find_rows(next);
      }
    }
    if (tile >= walk.count) break;
    at = next;
  }
}

}  // namespace detinfer::expert
