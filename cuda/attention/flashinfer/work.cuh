// What a thread block of flashinfer does: it takes pieces of work one after another, prefill tiles before decode
// splits, each for one KV head. Keys and values come through a ring of tiles in shared memory, which runs on into the
// next piece while the last one is being finished.
#pragma once

#include "attention/flashinfer/merge.cuh"
#include "attention/flashinfer/step.cuh"
#include "core/ptx.cuh"

namespace detinfer::flashinfer {

using namespace attention;

/// As many as leave a thread 255 registers.
constexpr int kWarps = 8, kThreads = kWarps * 32;
/// Warps of a team: the scores of a prefill tile's rows are cut by keys over a team, the sums by columns.
constexpr int kTeamWarps = 2;
/// Query rows of a decode split, of which the heads of a group are used.
constexpr int kDecodeRows = 16;

struct FlashinferArgs {
  StepArgs step;
  const bf16* keys;
  const bf16* values;
  int head_dim;
  /// Totals of a tile's finished splits, in the order of the threads that hold them. [block][kTotalFloats<D>]
  float* totals;
};

/// 16s of rows that a team of warps computes, and rows of a tile.
template <int D>
constexpr int kRowTiles = D > 128 ? 1 : 2;
template <int D>
constexpr int kTileRows = kWarps / kTeamWarps * kRowTiles<D> * 16;
template <int D>
constexpr int kTotalFloats = kTileRows<D> * D;

/// A piece of work on its way from the plan.
struct Slot {
  /// Of the plan: the number of splits comes first.
  int32_t header[4];
  int32_t number;
  int32_t padding[3];
  /// A PrefillTile, or a DecodeSplit and its pages.
  int32_t record[kSplitWords + kSplitKeys / 16];
};

/// A prefill tile or a decode split of one KV head.
struct Work {
  enum Kind { kNone, kTile, kSplit };
  Kind kind;
  int kv_head;

  /// Tiles of all KV heads come first, then splits.
  __device__ __forceinline__ Work(const StepArgs& args, const Slot& slot) {
    const int tiles = args.tile_count * args.kv_heads, number = slot.number;
    kind = number < tiles ? kTile : number - tiles < slot.header[0] * args.kv_heads ? kSplit : kNone;
    kv_head = number % args.kv_heads;
  }
};

/// Shared memory in bytes. Rows are 16 bytes longer than their content, so that eight of them, of 16 bytes each, lie in
/// different banks.
template <int D>
struct Shared {
  static constexpr int kRow = (D + 8) * 2, kWeightRow = (kBlockKeys + 8) * 2;
  /// A stage holds 128 keys or values, and behind a decode split's first keys its queries.
  static constexpr int kStageQueries = kBlockKeys * kRow, kStage = kStageQueries + kDecodeRows * kRow;
  static constexpr int kStages = D > 128 ? 2 : D > 64 ? 4 : 6;
  static constexpr int kQueries = kStages * kStage;
  /// Weights of a block, a row of 128 bf16 for each of the tile's; a merge of splits keeps its factors here.
  static constexpr int kWeights = kQueries + kTileRows<D> * kRow;
  /// Largest scores that each warp finds in each of its rows.
  static constexpr int kMaxima = kWeights + kTileRows<D> * kWeightRow;
  /// Sums of weights of the tile's rows.
  static constexpr int kSums = kMaxima + kWarps * 32 * 4;
  static constexpr int kFlag = kSums + 128 * 4;
  /// More than the ring can run ahead.
  static constexpr int kSlotCount = 8, kSlots = kFlag + 16;
  static constexpr int kBarriers = kSlots + kSlotCount * int(sizeof(Slot));
  static constexpr int kBytes = kBarriers + 8 * (2 * kStages + kSlotCount);
  static_assert(kBytes <= 227 * 1024);
  static_assert(kTileRows<D> * kWeightRow >= kMergeBytes);

  __device__ static uint32_t full(uint32_t shared, int stage) { return shared + kBarriers + 16 * stage; }
  __device__ static uint32_t empty(uint32_t shared, int stage) { return shared + kBarriers + 16 * stage + 8; }
  __device__ static uint32_t dealt(uint32_t shared, int n) {
    return shared + kBarriers + 16 * kStages + 8 * (n % kSlotCount);
  }
  __device__ static const Slot& slot(const uint8_t* memory, int n) {
    return *reinterpret_cast<const Slot*>(memory + kSlots + n % kSlotCount * sizeof(Slot));
  }
};

/// This warp, in a register of which the compiler knows that all lanes agree; by all lanes.
__device__ __forceinline__ int own_warp() { return __shfl_sync(~0u, threadIdx.x / 32, 0); }

/// Waits until the block's n-th piece of work is in its slot.
template <int D>
__device__ __forceinline__ const Slot& wait_dealt(const uint8_t* memory, uint32_t shared, int n) {
  barrier_wait(Shared<D>::dealt(shared, n), n / Shared<D>::kSlotCount & 1);
  return Shared<D>::slot(memory, n);
}

}  // namespace detinfer::flashinfer
