// How a thread block of prefill lies in shared memory, and which tiles it takes. Eight warps compute rows of their own
// against blocks of 128 keys, which come through a ring of stages: a block's keys, its values, the next one's keys, …
#pragma once

#include "attention/flashinfer/ampere.cuh"
#include "attention/flashinfer/kernels.cuh"
#include "attention/ring.cuh"
#include "core/ptx.cuh"

namespace detinfer::flashinfer {

using namespace attention;

/// As many as leave a thread 255 registers.
constexpr int kWarps = 8, kThreads = kWarps * 32;

/// 8s of rows that a warp computes: their scores and sums fill 192 of a thread's registers.
template <int D>
constexpr int kRowTiles = 768 / (kBlockKeys + D);
template <int D>
constexpr int kWarpRows = kRowTiles<D> * 8;
template <int D>
constexpr int kTileRows = kWarps * kWarpRows<D>;

/// A tile for one KV head.
struct DealtTile {
  PrefillTile tile;
  int kv_head;
  /// Of keys that its last row sees; 0 if there is no tile.
  int blocks;
  int last_page;
};

/// Shared memory in bytes. The 16 bytes of number u of row r lie at u ^ (r % 8): eight rows' lie in different banks.
template <int D>
struct Shared {
  static constexpr int kRow = D * 2, kStage = kBlockKeys * kRow, kStages = D > 128 ? 2 : 4;
  static constexpr int kQueries = kStages * kStage;
  /// (maximum, sum) of the finished splits of each row.
  static constexpr int kRules = kQueries + kTileRows<D> * kRow;
  static constexpr int kBarriers = kRules + kTileRows<D> * 8;
  /// Sums of values of finished splits, in pieces of four for each thread. What has no room is in global memory.
  static constexpr int kTotals = kBarriers + 16 * kStages, kPieceBytes = kThreads * 16;
  static constexpr int kPieces = D / 16 * kRowTiles<D>, kRoom = (227 * 1024 - kTotals) / kPieceBytes;
  static constexpr int kSharedPieces = kPieces < kRoom ? kPieces : kRoom;
  static constexpr int kBytes = kTotals + kSharedPieces * kPieceBytes;

  __device__ static uint32_t full(uint32_t shared, int stage) { return shared + kBarriers + 16 * stage; }
  __device__ static uint32_t empty(uint32_t shared, int stage) { return shared + kBarriers + 16 * stage + 8; }
};

/// The n-th tile of this thread block: heaviest first, dealt forth in even rounds and back in odd ones.
__device__ __forceinline__ DealtTile deal(const PrefillArgs& args, int n) {
  DealtTile dealt;
  dealt.blocks = 0;
  const int number = n * int(gridDim.x) + int(n & 1 ? gridDim.x - 1 - blockIdx.x : blockIdx.x);
  if (number >= args.tile_count * args.kv_heads) return dealt;
  const int tile = __umulhi(2 * number, args.kv_heads_inverse);
  const int4 words = __ldg(reinterpret_cast<const int4*>(args.tiles) + tile);
  dealt.tile = reinterpret_cast<const PrefillTile&>(words);
  dealt.kv_head = number - tile * args.kv_heads;
  const int last_key = dealt.tile.start + dealt.tile.positions - 1;
  dealt.blocks = last_key / kBlockKeys + 1;
  dealt.last_page = last_key >> args.page_shift;
  return dealt;
}

/// This warp, in a register of which the compiler knows that all lanes agree; by all lanes.
__device__ __forceinline__ int own_warp() { return __shfl_sync(~0u, threadIdx.x / 32, 0); }

}  // namespace detinfer::flashinfer
