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
constexpr int kWarps = kPrefillWarps, kThreads = kWarps * 32;

/// 8s of rows that a warp computes: their scores and sums fill 192 of a thread's registers.
template <int D>
constexpr int kRowTiles = 768 / (kBlockKeys + D);
template <int D>
constexpr int kWarpRows = kRowTiles<D> * 8;
template <int D>
constexpr int kTileRows = kWarps * kWarpRows<D>;

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
  /// Pieces in global memory: those, then a whole total that is handed on, with the rules of each tile of rows.
  static constexpr int kGlobalPieces = kPieces - kSharedPieces;
  static constexpr int kTotalPieces = kGlobalPieces + kPieces + kRowTiles<D>;

  __device__ static uint32_t full(uint32_t shared, int stage) { return shared + kBarriers + 16 * stage; }
  __device__ static uint32_t empty(uint32_t shared, int stage) { return shared + kBarriers + 16 * stage + 8; }
};

/// The same for all lanes, in a register of which the compiler knows that.
__device__ __forceinline__ int uniform(int x) { return __shfl_sync(~0u, x, 0); }

/// A load that the compiler does not take for another of the same.
__device__ __forceinline__ int4 load_anew(const int4* from) {
  int4 v;
  asm volatile("ld.global.nc.v4.b32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(from));
  return v;
}

/// The n-th work of this thread block, with end = 0 behind the last: a piece of its share or, without shares, a whole
/// tile, heaviest first, dealt forth in even rounds and back in odd ones.
template <bool kShared>
__device__ __forceinline__ PrefillPiece deal(const PrefillArgs& args, int n) {
  PrefillPiece piece;
  piece.end = 0;
  if constexpr (kShared) {
    const int number = uniform(__ldg(args.shares + blockIdx.x)) + n;
    if (number >= uniform(__ldg(args.shares + blockIdx.x + 1))) return piece;
    const int4* const from = reinterpret_cast<const int4*>(args.pieces + number);
    const int4 tile = load_anew(from), rest = load_anew(from + 1);
    piece.tile = reinterpret_cast<const PrefillTile&>(tile);
    piece.kv_head = rest.x;
    piece.first = rest.y;
    piece.end = rest.z;
  } else {
    const int number = n * int(gridDim.x) + int(n & 1 ? gridDim.x - 1 - blockIdx.x : blockIdx.x);
    if (number >= args.tile_count * args.kv_heads) return piece;
    const int tile = __umulhi(2 * number, args.kv_heads_inverse);
    const int4 words = __ldg(reinterpret_cast<const int4*>(args.tiles) + tile);
    piece.tile = reinterpret_cast<const PrefillTile&>(words);
    piece.kv_head = number - tile * args.kv_heads;
    piece.first = 0;
    piece.end = (piece.tile.start + piece.tile.positions - 1) / kBlockKeys + 1;
  }
  return piece;
}

/// This warp, in a register of which the compiler knows that all lanes agree; by all lanes.
__device__ __forceinline__ int own_warp() { return uniform(threadIdx.x / 32); }

}  // namespace detinfer::flashinfer
