// What a thread block of prefill does: it takes tiles one after another, each for one KV head. Keys and values come
// through a ring of tiles in shared memory, which runs on into the next piece while the last one is being finished.
#pragma once

#include "attention/flashinfer/kernels.cuh"
#include "attention/plan.h"
#include "attention/ring.cuh"
#include "core/bf16_vector.cuh"
#include "core/ptx.cuh"

namespace detinfer::flashinfer {

using namespace attention;

/// As many as leave a thread 255 registers.
constexpr int kWarps = 8, kThreads = kWarps * 32;
/// Warps of a team: the scores of a prefill tile's rows are cut by keys over a team, the sums by columns.
constexpr int kTeamWarps = 2;

/// 16s of rows that a team of warps computes, and rows of a tile.
template <int D>
constexpr int kRowTiles = D > 128 ? 1 : 2;
template <int D>
constexpr int kTileRows = kWarps / kTeamWarps * kRowTiles<D> * 16;
template <int D>
constexpr int kTotalFloats = kTileRows<D> * D;

/// A tile of a KV head on its way from the plan; the tile is set if the number is one.
struct Slot {
  PrefillTile tile;
  int32_t number;
  int32_t padding[3];
};

/// Shared memory in bytes. Rows are 16 bytes longer than their content, so that eight of them, of 16 bytes each, lie in
/// different banks.
template <int D>
struct Shared {
  static constexpr int kRow = (D + 8) * 2, kWeightRow = (kBlockKeys + 8) * 2;
  /// A stage holds 128 keys or values.
  static constexpr int kStage = kBlockKeys * kRow;
  static constexpr int kStages = D > 128 ? 2 : D > 64 ? 4 : 6;
  static constexpr int kQueries = kStages * kStage;
  /// Weights of a block, a row of 128 bf16 for each of the tile's.
  static constexpr int kWeights = kQueries + kTileRows<D> * kRow;
  /// Largest scores that each warp finds in each of its rows.
  static constexpr int kMaxima = kWeights + kTileRows<D> * kWeightRow;
  /// Sums of weights of the tile's rows.
  static constexpr int kSums = kMaxima + kWarps * 32 * 4;
  /// More than the ring can run ahead.
  static constexpr int kSlotCount = 8, kSlots = kSums + 128 * 4;
  static constexpr int kBarriers = kSlots + kSlotCount * int(sizeof(Slot));
  static constexpr int kBytes = kBarriers + 8 * (2 * kStages + kSlotCount);
  static_assert(kBytes <= 227 * 1024);

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

/// A block counts itself out when nothing is left to deal; the last one readies the queue for the next launch.
/// @param numbers how many there were in all
__device__ __forceinline__ void leave_queue(const PrefillArgs& args, int numbers) {
  const int busy_blocks = min(numbers, int(gridDim.x));
  if (int(blockIdx.x) >= busy_blocks) return;
  if (atomicAdd(args.queue + 1, 1) == busy_blocks - 1) args.queue[0] = args.queue[1] = 0;
}

/// Stores two neighbouring elements of the output. @param at of the first one
__device__ __forceinline__ void store_pair(const PrefillArgs& args, int64_t at, float a, float b) {
  if (args.out_f32 != nullptr) {
    *reinterpret_cast<float2*>(args.out_f32 + at) = make_float2(a, b);
  } else {
    *reinterpret_cast<uint32_t*>(args.out + at) = pack_bf16(a, b);
  }
}

}  // namespace detinfer::flashinfer
