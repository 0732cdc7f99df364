// Decoding: one row of a sequence against one split of its keys, for the query heads that share a KV head. There is
// one thread block to a multiprocessor, and its warps have three jobs, so that none waits for another's latencies.
// Producers (producer.cuh) are dealt splits and bring their tiles of 128 keys, then those of their values, through a
// ring that runs on into the next split. Eight warps compute (rows.cuh). Four count finished splits and merge those of
// a sequence, in order, once all are there (merge.cuh). They meet in shared memory, which is described here.
//
// Backends differ in how tiles get there. A class DecodeLoader<D, kOctets> of each says so:
//   kWarps                       producing warps
//   kTileArrivals, kTaskArrivals arrivals at a barrier that complete a tile, or a task with its queries
//   kPadded                      whether heads may have less than D columns; else args.head_dim is D
//   barriers_ready()             by the thread that initialised the barriers, before a __syncthreads
//   wait(barrier, parity)        waits until the phase with this parity has ended
//   tile_written()               by lanes that have written to a tile, before the warp gives it back
//   Source                       where keys and values are: a parameter of the kernel
//   DecodeLoader(source, args, memory, warp), and all below, by all lanes of a producing warp
//   chunk_shift()                log2 of the keys, at most 128, for which it is told where they begin
//   hand_over(task, slots)       gives the other warps a task and its queries, if rope has made them, once the slot is
//                                empty; by the first warp
//   load_tile(values, row, j, ring)   brings the warp's part of block j of keys or values, once the stage is empty;
//                                lane i's `row` is where the split's chunk i begins
#pragma once

#include "attention/decode/args.cuh"
#include "attention/ring.cuh"
#include "attention/rules.cuh"
#include "core/ptx.cuh"

namespace detinfer::attention {

constexpr int kDecodeWarps = 8;
constexpr int kDecodeConsumers = kDecodeWarps * 32;
constexpr int kMergeWarps = 4;
constexpr int kSplitBlocks = kSplitKeys / kBlockKeys;

/// What the producers tell the others about a pair of split and KV head: the plan's record with the KV head in it.
/// No keys: there are no more pairs.
struct alignas(16) DecodeTask {
  int row, keys, split, splits, partial, counter, kv_head, position;
  /// Where the last of its keys, which is made here, belongs in the pool, seen as a matrix of head_dim columns; -1: the
  /// pool has all of them.
  int new_row;
};

/// Shared memory in bytes. A tile is pieces of 64 columns: rows of 128 bytes, in which the place of each 16 is xor'ed
/// with the row's number modulo 8, as TMA's 128-byte swizzle does it.
/// @tparam D columns of a head, zeros behind head_dim @tparam kOctets 1 for up to 8 query heads to a KV head, 2 for 16
template <int D, int kOctets>
struct DecodeShared {
  static constexpr int kTile = kBlockKeys * D * 2, kPiece = kBlockKeys * 128;
  /// More tiles under way only make everything else that goes to memory wait longer.
  static constexpr int kStages = 128 * 1024 / kTile;
  /// Rows of weights and queries are padded so that fragments are read without bank conflicts.
  static constexpr int kWeightRow = (kSplitKeys + 8) * 2, kWeights = kStages * kTile;
  /// [block][row][warp]
  static constexpr int kMaxima = kWeights + 8 * kOctets * kWeightRow;
  /// Tasks on their way, each with its queries and, behind them, a new key and its value.
  static constexpr int kSlots = 3, kSlot = kMaxima + kSplitBlocks * 8 * kOctets * kDecodeWarps * 4;
  static constexpr int kQueries = int(sizeof(DecodeTask)), kQueryRow = (D + 8) * 2;
  static constexpr int kNewKey = kQueries + 8 * kOctets * kQueryRow, kNewValue = kNewKey + kQueryRow;
  static constexpr int kSlotBytes = kNewValue + kQueryRow;
  /// For each slot, whether the mergers have counted its sequence's last split.
  static constexpr int kLast = kSlot + kSlots * kSlotBytes;
  /// What the queue gave, for the other producing warps: for every other split.
  static constexpr int kTaken = kLast + 16;
  static constexpr int kBarriers = kTaken + 16, kBytes = kBarriers + 16 * kStages + 24 * kSlots;
  static_assert(kBytes <= 227 * 1024, "more than a multiprocessor has");

  /// Tiles go from the producers to the consumers and back. Slots go to both other jobs, from the consumers (stored) to
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

/// Stores two sums of a split so that they are the last to leave L2: whoever merges them comes soon.
__device__ __forceinline__ void store_to_stay(float* to, float low, float high) {
  uint64_t policy;
  asm("createpolicy.fractional.L2::evict_last.b64 %0, 1.0;" : "=l"(policy));
  asm volatile("st.global.L2::cache_hint.v2.f32 [%0], {%1, %2}, %3;" ::"l"(to), "f"(low), "f"(high), "l"(policy)
               : "memory");
}

/// Stores two outputs that lie together, from element `at` on.
__device__ __forceinline__ void store_output(const DecodeArgs& args, int64_t at, float2 o) {
  if (args.out_f32 != nullptr) {
    *reinterpret_cast<float2*>(args.out_f32 + at) = o;
  } else {
    *reinterpret_cast<uint32_t*>(args.out + at) = pack_bf16(o.x, o.y);
  }
}

}  // namespace detinfer::attention
