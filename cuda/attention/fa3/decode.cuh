// Decoding: one row of a sequence against one split of its keys, for the query heads that share a KV head. Four warps
// compute and a fifth brings tiles of 128 keys or values through a ring of TMA loads, which runs on into the next split
// while the last one is being finished. Splits are dealt to whoever is free: in a fixed order, a block that lags behind
// finishes its sequences last, has to merge their splits, and so lags more. The block that finishes a sequence's last
// split merges them all, in order.
#pragma once

#include "attention/fa3/rules.cuh"
#include "attention/plan.h"
#include "core/launch.cuh"
#include "core/ptx.cuh"

namespace detinfer::fa3 {

struct DecodeArgs {
  /// The plan's header and records.
  const int32_t* plan;
  int split_words;
  const bf16* q;
  bf16* out;
  /// If not null, it gets the outputs before rounding, and `out` nothing.
  float* out_f32;
  /// Finished splits: (maximum, sum) [split][heads] and sums of values [split][heads][head_dim].
  float2* partial_rules;
  float* partial_sums;
  /// Finished splits of each sequence and KV head; all 0 between launches.
  int* counters;
  /// Pairs of split and KV head dealt beyond the first of each block, and busy blocks that are done; both 0 between
  /// launches. A block without a first pair touches neither: an earlier launch may still be under way.
  int* queue;
  int heads;
  int kv_heads;
  int page_shift;
  float scale;
};

constexpr int kDecodeWarps = 4;
constexpr int kDecodeConsumers = kDecodeWarps * 32;
/// Splits that are merged at once.
constexpr int kMergeSplits = 32;
constexpr int kDecodeThreads = kDecodeConsumers + 32;

/// Shared memory in bytes.
template <int D>
struct DecodeShared {
  static constexpr int kTile = kBlockKeys * D * 2, kPiece = kBlockKeys * 128;
  static constexpr int kStages = 96 * 1024 / kTile;
  /// Weights of a block: up to 16 rows of 128 bf16, padded so that fragments are read without bank conflicts. A merge
  /// keeps the factors of 32 splits for each row here.
  static constexpr int kWeightRow = (kBlockKeys + 8) * 2, kWeights = kStages * kTile;
  static constexpr int kMaxima = kWeights + 16 * kMergeSplits * 16;
  static constexpr int kFlag = kMaxima + kDecodeWarps * 16 * 4;
  /// Dealt numbers on their way to the consumers: more than the ring can run ahead.
  static constexpr int kSlots = 8, kDealt = kFlag + 16;
  static constexpr int kBarriers = kDealt + 4 * kSlots, kBytes = kBarriers + 16 * kStages + 8 * kSlots;
  __device__ static uint32_t full(uint32_t shared, int stage) { return shared + kBarriers + 16 * stage; }
  __device__ static uint32_t empty(uint32_t shared, int stage) { return shared + kBarriers + 16 * stage + 8; }
  __device__ static uint32_t dealt(uint32_t shared, int slot) { return shared + kBarriers + 16 * kStages + 8 * slot; }
};

/// Walks the ring of stages.
template <int kStages>
struct RingPosition {
  int stage = 0;
  uint32_t parity = 0;
  __device__ __forceinline__ void advance() {
    if (++stage == kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

/// The pair of split and KV head of a number. @return false if there are not so many
__device__ __forceinline__ bool read_split(const DecodeArgs& args, int number, DecodeSplit& split,
                                           const int32_t*& pages, int& kv_head) {
  // Not one after the other: the record may be stale memory when there is no such split.
  const int count = __ldg(args.plan), index = number / args.kv_heads;
  const int32_t* const record = args.plan + PlanLayout::kHeaderWords + int64_t(index) * args.split_words;
  const int4 first = __ldg(reinterpret_cast<const int4*>(record));
  const int4 second = __ldg(reinterpret_cast<const int4*>(record) + 1);
  split = {first.x, first.y, first.z, first.w, second.x, second.y, {0, 0}};
  pages = record + kSplitWords;
  kv_head = number - index * args.kv_heads;
  return index < count;
}

/// The number that was dealt as the block's n-th: its own, then what the producer got from the queue.
template <int D>
__device__ __forceinline__ int wait_dealt(const uint8_t* memory, uint32_t shared, int n) {
  using Shared = DecodeShared<D>;
  if (n == 0) return blockIdx.x;
  const int slot = (n - 1) % Shared::kSlots;
  barrier_wait(Shared::dealt(shared, slot), (n - 1) / Shared::kSlots & 1);
  return reinterpret_cast<const volatile int*>(memory + Shared::kDealt)[slot];
}

/// Waits for the kernel before. A block that has nothing to do ends at once instead, so that the next kernel's block can
/// begin in its place; the first one always waits, so that this kernel does not end before the one before it.
__device__ __forceinline__ void wait_unless_idle(bool has_work) {
  if (has_work || blockIdx.x == 0) wait_for_inputs();
}

/// The producer warp's work.
template <int D>
__device__ __forceinline__ void decode_produce(const CUtensorMap* keys, const CUtensorMap* values,
                                               const DecodeArgs& args, uint8_t* memory) {
  using Shared = DecodeShared<D>;
  const int lane = threadIdx.x % 32;
  const uint32_t shared = shared_address(memory);
  const bool leader = elect_one();
  const int box_shift = min(args.page_shift, 7), boxes = kBlockKeys >> box_shift;
  RingPosition<Shared::kStages> ring;
  DecodeSplit split;
  const int32_t* pages;
  int kv_head;
  int number = blockIdx.x;
  for (int n = 0;; ++n) {
    if (n > 0 && lane == 0) {
      const int slot = (n - 1) % Shared::kSlots;
      reinterpret_cast<volatile int*>(memory + Shared::kDealt)[slot] = number;
      barrier_arrive(Shared::dealt(shared, slot));
    }
    __syncwarp();
    const bool more = read_split(args, number, split, pages, kv_head);
    // Lane i knows where the split's box i begins in the pool, seen as a matrix of head_dim columns; at most 32.
    int row = 0;
    if (more) {
      const int key = split.split * kSplitKeys + (lane << box_shift);
      const int page = __ldg(pages + (min(lane << box_shift, kSplitKeys - 1) >> args.page_shift));
      row = ((page * args.kv_heads + kv_head) << args.page_shift) + (key & ((1 << args.page_shift) - 1));
    }
    // The plan was brought by a copy, see core/launch.cuh; keys and values of the newest position by the kernel before.
    if (n == 0) wait_unless_idle(more);
    if (!more) break;
    // Asked for long before it is needed.
    int taken = 0;
    if (lane == 0) taken = atomicAdd(args.queue, 1);
    const int blocks = (split.keys + kBlockKeys - 1) / kBlockKeys;
    for (int tile = 0; tile < 2 * blocks; ++tile, ring.advance()) {
      const CUtensorMap* const map = tile & 1 ? values : keys;
      const uint32_t full = Shared::full(shared, ring.stage), to = shared + ring.stage * Shared::kTile;
      if (leader) {
        barrier_wait(Shared::empty(shared, ring.stage), ring.parity ^ 1);
        barrier_expect(full, Shared::kTile);
      }
      for (int box = 0; box < boxes; ++box) {
        const int y = __shfl_sync(~0u, row, tile / 2 * boxes + box);
        if (leader) {
#pragma unroll
          for (int piece = 0; piece < D / 64; ++piece) {
            tma_load_2d(to + piece * Shared::kPiece + (box * 128 << box_shift), map, piece * 64, y, full);
          }
        }
      }
    }
    number = int(gridDim.x) + __shfl_sync(~0u, taken, 0);
  }
  const int pairs = __ldg(args.plan) * args.kv_heads, busy_blocks = min(pairs, int(gridDim.x));
  if (int(blockIdx.x) >= busy_blocks) return;
  if (lane == 0 && atomicAdd(args.queue + 1, 1) == busy_blocks - 1) args.queue[0] = args.queue[1] = 0;
}

}  // namespace detinfer::fa3
