// Decoding: one row of a sequence against one split of its keys, for the query heads that share a KV head. There is one
// thread block to a multiprocessor, and its warps have three jobs, so that none waits for another's latencies. One warp
// (here) is dealt splits and brings their tiles of 128 keys, then those of their values, through a ring of TMA loads,
// which runs on into the next split. Eight compute (decode_rows.cuh). Four count finished splits and merge those of a
// sequence, in order, once all are there (decode_merge.cuh).
#pragma once

#include "attention/plan.h"
#include "attention/ring.cuh"
#include "attention/rules.cuh"
#include "core/ptx.cuh"

namespace detinfer::fa3 {

using namespace attention;

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

constexpr int kDecodeWarps = 8;
constexpr int kDecodeConsumers = kDecodeWarps * 32;
constexpr int kMergeWarps = 4;
constexpr int kDecodeThreads = (kDecodeWarps + kMergeWarps + 1) * 32;
constexpr int kSplitBlocks = kSplitKeys / kBlockKeys;

/// What the producer tells the others about a pair of split and KV head: the plan's record with the KV head in it.
/// No keys: there are no more pairs.
struct DecodeTask {
  int row, keys, split, splits, partial, counter, kv_head, padding;
};

/// Shared memory in bytes.
template <int D, int kOctets>
struct DecodeShared {
  static constexpr int kTile = kBlockKeys * D * 2, kPiece = kBlockKeys * 128;
  /// More tiles under way only make everything else that goes to memory wait longer.
  static constexpr int kStages = 128 * 1024 / kTile;
  /// Rows of weights and queries are padded so that fragments are read without bank conflicts.
  static constexpr int kWeightRow = (kSplitKeys + 8) * 2, kWeights = kStages * kTile;
  /// [block][row][warp]
  static constexpr int kMaxima = kWeights + 8 * kOctets * kWeightRow;
  /// Tasks on their way, each with its queries.
  static constexpr int kSlots = 3, kSlot = kMaxima + kSplitBlocks * 8 * kOctets * kDecodeWarps * 4;
  static constexpr int kQueries = int(sizeof(DecodeTask)), kQueryRow = (D + 8) * 2;
  static constexpr int kSlotBytes = kQueries + 8 * kOctets * kQueryRow;
  /// For each slot, whether the mergers have counted its sequence's last split.
  static constexpr int kLast = kSlot + kSlots * kSlotBytes;
  static constexpr int kBarriers = kLast + 16, kBytes = kBarriers + 16 * kStages + 24 * kSlots;
  static_assert(kBytes <= 227 * 1024, "more than a multiprocessor has");
  /// Tiles go from the producer to the consumers and back. Slots go to both other jobs, from the consumers (stored) to
  /// the mergers, and back.
  __device__ static uint32_t full(uint32_t shared, int stage) { return shared + kBarriers + 16 * stage; }
  __device__ static uint32_t empty(uint32_t shared, int stage) { return full(shared, stage) + 8; }
  __device__ static uint32_t slot_full(uint32_t shared, int slot) {
    return shared + kBarriers + 16 * kStages + 24 * slot;
  }
  __device__ static uint32_t slot_stored(uint32_t shared, int slot) { return slot_full(shared, slot) + 8; }
  __device__ static uint32_t slot_empty(uint32_t shared, int slot) { return slot_full(shared, slot) + 16; }
};

/// Arrives for a warp: everything that it has read or written comes before.
__device__ __forceinline__ void warp_arrive(uint32_t barrier) {
  __syncwarp();
  if (threadIdx.x % 32 == 0) barrier_arrive(barrier);
}

/// Row of the workspace of a sequence's first split and a task's first query head; splits are `heads` rows apart.
__device__ __forceinline__ int64_t partial_row(const DecodeArgs& args, const DecodeTask& task) {
  return int64_t(task.partial) * args.heads + task.kv_head * (args.heads / args.kv_heads);
}

/// Stores two outputs that lie together, from element `at` on.
__device__ __forceinline__ void store_output(const DecodeArgs& args, int64_t at, float2 o) {
  if (args.out_f32 != nullptr) {
    *reinterpret_cast<float2*>(args.out_f32 + at) = o;
  } else {
    *reinterpret_cast<uint32_t*>(args.out + at) = pack_bf16(o.x, o.y);
  }
}

__device__ __forceinline__ void prefetch_tensor_map(const CUtensorMap* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

/// Like tma_load_2d, for what nobody reads again soon: it is the first to leave L2, before the partial results.
__device__ __forceinline__ void tma_load_2d_once(uint32_t to, const CUtensorMap* map, int x, int y, uint32_t barrier) {
  uint64_t policy;
  asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
      "[%0], [%1, {%2, %3}], [%4], %5;" ::"r"(to),
      "l"(map), "r"(x), "r"(y), "r"(barrier), "l"(policy)
      : "memory");
}

/// The producer warp's work.
template <int D, int kOctets>
class DecodeProducer {
  using Shared = DecodeShared<D, kOctets>;

 public:
  __device__ __forceinline__ DecodeProducer(const CUtensorMap* keys, const CUtensorMap* values, const DecodeArgs& args,
                                            uint8_t* memory)
      : maps_{keys, values},
        args_(args),
        memory_(memory),
        shared_(shared_address(memory)),
        group_(args.heads / args.kv_heads),
        lane_(threadIdx.x % 32),
        box_shift_(min(args.page_shift, 7)),
        leader_(elect_one()) {}

  __device__ __forceinline__ void run() {
    if (leader_) {
      prefetch_tensor_map(maps_[0]);
      prefetch_tensor_map(maps_[1]);
    }
    Record record = read(blockIdx.x);
    // The plan was brought by a copy, see core/launch.cuh; keys and values of the newest position by the kernel before.
    wait_unless_idle(record.exists);
    while (record.exists) {
      // Asked for long before it is needed.
      int taken = 0;
      if (lane_ == 0) taken = atomicAdd(args_.queue, 1);
      hand_over(record.task);
      const int blocks = (record.task.keys + kBlockKeys - 1) / kBlockKeys;
      load_tiles(maps_[0], record.row, blocks);
      load_tiles(maps_[1], record.row, blocks);
      record = read(int(gridDim.x) + __shfl_sync(~0u, taken, 0));
    }
    hand_over({});
    const int pairs = __ldg(args_.plan) * args_.kv_heads, busy_blocks = min(pairs, int(gridDim.x));
    if (int(blockIdx.x) >= busy_blocks) return;
    if (lane_ == 0 && atomicAdd(args_.queue + 1, 1) == busy_blocks - 1) args_.queue[0] = args_.queue[1] = 0;
  }

 private:
  struct Record {
    bool exists;
    DecodeTask task;
    /// Lane i knows where the split's box i begins in the pool, seen as a matrix of head_dim columns; at most 32.
    int row;
  };

  /// The pair of split and KV head of a number.
  __device__ __forceinline__ Record read(int number) const {
    // Not one after the other: the record may be stale memory when there is no such split.
    const int count = __ldg(args_.plan), index = number / args_.kv_heads, kv_head = number - index * args_.kv_heads;
    const int32_t* const from = args_.plan + PlanLayout::kHeaderWords + int64_t(index) * args_.split_words;
    const int4 a = __ldg(reinterpret_cast<const int4*>(from)), b = __ldg(reinterpret_cast<const int4*>(from) + 1);
    const int offset = lane_ << box_shift_, key = a.z * kSplitKeys + offset;
    const int page = __ldg(from + kSplitWords + (min(offset, kSplitKeys - 1) >> args_.page_shift));
    const int row = ((page * args_.kv_heads + kv_head) << args_.page_shift) + (key & ((1 << args_.page_shift) - 1));
    return {index < count, {a.x, a.y, a.z, a.w, b.x, b.y, kv_head, 0}, row};
  }

  /// Gives the other warps a task and brings its queries.
  __device__ __forceinline__ void hand_over(const DecodeTask& task) {
    if (leader_) {
      const int at = Shared::kSlot + slots_.stage * Shared::kSlotBytes;
      const uint32_t full = Shared::slot_full(shared_, slots_.stage);
      barrier_wait(Shared::slot_empty(shared_, slots_.stage), slots_.parity ^ 1);
      *reinterpret_cast<DecodeTask*>(memory_ + at) = task;
      const int rows = task.keys > 0 ? group_ : 0;
      barrier_expect(full, rows * D * 2);
      const bf16* const q = args_.q + (int64_t(task.row) * args_.heads + task.kv_head * group_) * D;
      for (int r = 0; r < rows; ++r) {
        bulk_load(shared_ + at + Shared::kQueries + r * Shared::kQueryRow, q + r * D, D * 2, full);
      }
    }
    slots_.advance();
    __syncwarp();
  }

  __device__ __forceinline__ void load_tiles(const CUtensorMap* map, int row, int blocks) {
    const int boxes = kBlockKeys >> box_shift_;
    for (int j = 0; j < blocks; ++j, ring_.advance()) {
      const uint32_t full = Shared::full(shared_, ring_.stage), to = shared_ + ring_.stage * Shared::kTile;
      if (leader_) {
        barrier_wait(Shared::empty(shared_, ring_.stage), ring_.parity ^ 1);
        barrier_expect(full, Shared::kTile);
      }
      for (int box = 0; box < boxes; ++box) {
        const int y = __shfl_sync(~0u, row, j * boxes + box);
        if (leader_) {
#pragma unroll
          for (int piece = 0; piece < D / 64; ++piece) {
            tma_load_2d_once(to + piece * Shared::kPiece + (box * 128 << box_shift_), map, piece * 64, y, full);
          }
        }
      }
    }
  }

  const CUtensorMap* const maps_[2];
  const DecodeArgs& args_;
  uint8_t* const memory_;
  const uint32_t shared_;
  const int group_, lane_, box_shift_;
  const bool leader_;
  RingPosition<Shared::kStages> ring_;
  RingPosition<Shared::kSlots> slots_;
};

}  // namespace detinfer::fa3
