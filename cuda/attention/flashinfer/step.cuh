// What the kernels of a step are given, and how its decode splits are dealt to thread blocks: to whoever is free, by a
// counter. In a fixed order, a block that lags behind finishes its sequences last, has to merge their splits, and so
// lags more.
#pragma once

#include "attention/plan.h"
#include "attention/ring.cuh"
#include "core/bf16_vector.cuh"

namespace detinfer::flashinfer {

using namespace attention;

struct StepArgs {
  /// The plan's header and records of decode splits.
  const int32_t* plan;
  int split_words;
  /// Tiles of prefill, as many as were planned at the launch.
  const PrefillTile* tiles;
  int tile_count;
  /// The list that a tile's `pages` points into.
  const int32_t* pages;
  const bf16* q;
  bf16* out;
  /// If not null, it gets the outputs before rounding, and `out` nothing.
  float* out_f32;
  /// Finished splits: (maximum, sum) [split][heads] and sums of values [split][heads][head_dim].
  float2* partial_rules;
  float* partial_sums;
  /// Finished splits of each sequence and KV head; all 0 between launches.
  int* counters;
  /// Numbers dealt beyond the first of each block, and busy blocks that are done; both 0 between launches. A block
  /// without a first number touches neither: an earlier launch may still be under way.
  int* queue;
  int heads;
  int kv_heads;
  /// log2 of the page size.
  int page_shift;
  float scale;
};

/// A block counts itself out when nothing is left to deal; the last one readies the queue for the next launch.
/// @param numbers how many there were in all
__device__ __forceinline__ void leave_queue(const StepArgs& args, int numbers) {
  const int busy_blocks = min(numbers, int(gridDim.x));
  if (int(blockIdx.x) >= busy_blocks) return;
  if (atomicAdd(args.queue + 1, 1) == busy_blocks - 1) args.queue[0] = args.queue[1] = 0;
}

/// Stores two neighbouring elements of the output. @param at of the first one
__device__ __forceinline__ void store_pair(const StepArgs& args, int64_t at, float a, float b) {
  if (args.out_f32 != nullptr) {
    *reinterpret_cast<float2*>(args.out_f32 + at) = make_float2(a, b);
  } else {
    *reinterpret_cast<uint32_t*>(args.out + at) = pack_bf16(a, b);
  }
}

}  // namespace detinfer::flashinfer
