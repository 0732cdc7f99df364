// How decoding gets its tiles here: some warps of a thread block start copies of 16 bytes (cp.async).
#pragma once

#include "attention/decode/shared.cuh"
#include "attention/flashinfer/ampere.cuh"

namespace detinfer::flashinfer {

using namespace attention;

struct Pools {
  const bf16* keys;
  const bf16* values;
};

/// See attention/decode/shared.cuh.
template <int D, int kOctets>
class DecodeLoader {
  using Shared = DecodeShared<D, kOctets>;
  /// 16 bytes in a row, rows that a warp copies at once. Chunks of 16 keys lie together with pages of every size.
  static constexpr int kUnits = D / 8, kRows = 32 / kUnits, kChunkShift = 4, kChunk = 1 << kChunkShift;

 public:
  using Source = Pools;
  static constexpr int kWarps = 4, kTileArrivals = kWarps * 32, kTaskArrivals = 33;
  static constexpr bool kPadded = true;

  __device__ __forceinline__ static void barriers_ready() {}
  __device__ __forceinline__ static void wait(uint32_t barrier, uint32_t parity) { wait_for_phase(barrier, parity); }
  __device__ __forceinline__ static void tile_written() {}

  __device__ __forceinline__ DecodeLoader(const Pools& pools, const DecodeArgs& args, uint8_t* memory, int warp)
      : pools_(pools),
        args_(args),
        memory_(memory),
        shared_(shared_address(memory)),
        group_(args.heads / args.kv_heads),
        warp_(warp),
        unit_(threadIdx.x % 32 % kUnits),
        row_(threadIdx.x % 32 / kUnits),
        copies_(unit_ * 8 < args.head_dim) {}

  __device__ __forceinline__ static constexpr int chunk_shift() { return kChunkShift; }

  __device__ __forceinline__ void hand_over(const DecodeTask& task, const RingPosition<Shared::kSlots>& slots) const {
    const int at = Shared::kSlot + slots.stage * Shared::kSlotBytes;
    const uint32_t full = Shared::slot_full(shared_, slots.stage);
    wait(Shared::slot_empty(shared_, slots.stage), slots.parity ^ 1);
    const int64_t head = int64_t(task.row) * args_.heads + task.kv_head * group_;
    const int rows = task.keys > 0 && args_.rope.qkv == nullptr && copies_ ? group_ : 0;
    for (int r = row_; r < rows; r += kRows) {
      copy_16(shared_ + at + Shared::kQueries + r * Shared::kQueryRow + unit_ * 16,
              args_.rope.q + (head + r) * args_.head_dim + unit_ * 8);
    }
    arrive_when_copied(full);
    if (threadIdx.x % 32 == 0) {
      *reinterpret_cast<DecodeTask*>(memory_ + at) = task;
      barrier_arrive(full);
    }
    __syncwarp();
  }

  __device__ __forceinline__ void load_tile(bool values, int row, int j,
                                            const RingPosition<Shared::kStages>& ring) const {
    const bf16* const pool = values ? pools_.values : pools_.keys;
    const int64_t step = kRows * args_.head_dim;
    // Of the lane's first row, with its swizzle.
    const uint32_t to = shared_ + ring.stage * Shared::kTile + unit_ / 8 * Shared::kPiece + row_ * 128 +
                        ((unit_ % 8 ^ row_) << 4);
    wait(Shared::empty(shared_, ring.stage), ring.parity ^ 1);
    constexpr int kChunks = kBlockKeys / kChunk;
#pragma unroll
    for (int i = 0; i < kChunks / kWarps; ++i) {
      const int chunk = i * kWarps + warp_;
      const int y = __shfl_sync(~0u, row, j * kChunks + chunk);
      if (!copies_) continue;
      const bf16* from = pool + (int64_t(y) + row_) * args_.head_dim + unit_ * 8;
#pragma unroll
      for (int r = 0; r < kChunk; r += kRows, from += step) {
        copy_16((to ^ (r % 8 << 4)) + (chunk * kChunk + r) * 128, from);
      }
    }
    arrive_when_copied(Shared::full(shared_, ring.stage));
  }

 private:
  const Pools& pools_;
  const DecodeArgs& args_;
  uint8_t* const memory_;
  const uint32_t shared_;
  const int group_, warp_;
  /// The 16 bytes of a row that this lane copies, and its first row.
  const int unit_, row_;
  const bool copies_;
};

}  // namespace detinfer::flashinfer
