// The ring of blocks of keys and values. Every warp copies 16 rows of each, half a ring ahead of what it reads itself, and
// so that it waits for no warp that lags less than that.
#pragma once

#include "attention/flashinfer/work.cuh"

namespace detinfer::flashinfer {

template <int D>
class Ring {
  using S = Shared<D>;
  /// 16 bytes in a row, rows that a warp copies at once, keys of a warp in a block: they share a page of every size.
  static constexpr int kUnits = D / 8, kRowsAtOnce = 32 / kUnits, kWarpKeys = kBlockKeys / kWarps;
  static constexpr int kAhead = S::kStages / 2;
  static_assert(kWarpKeys == 16);

 public:
  /// Fills half of the ring.
  __device__ __forceinline__ Ring(const PrefillArgs& args, uint8_t* memory)
      : args_(args), memory_(memory), shared_(shared_address(memory)), warp_(own_warp()) {
    open();
#pragma unroll 1
    for (number_ = -kAhead; number_ < 0; ++number_) feed();
  }

  /// Waits for the next stage. @return where it lies in shared memory
  __device__ __forceinline__ uint32_t wait() const {
    barrier_wait(S::full(shared_, stage(number_)), parity(number_));
    return shared_ + stage(number_) * S::kStage;
  }

  /// Starts this warp's part of the copy of a stage, if there is another: once for each that it reads, while it does.
  __device__ __forceinline__ void feed() {
    if (blocks_ == 0) return;
    const int next = number_ + kAhead;
    barrier_wait(S::empty(shared_, stage(next)), parity(next) ^ 1);
    copy_rows(shared_ + stage(next) * S::kStage, next & 1 ? args_.values : args_.keys);
    arrive_when_copied(S::full(shared_, stage(next)));
    if ((next & 1) == 0) return;
    if (++block_ == blocks_) {
      ++tile_;
      open();
    } else {
      row_ = next_row_;
      next_row_ = row_of(deal(args_, tile_), block_ + 1);
    }
  }

  /// The warp has read the stage.
  __device__ __forceinline__ void release() {
    __syncwarp();
    if (threadIdx.x % 32 == 0) barrier_arrive(S::empty(shared_, stage(number_)));
    ++number_;
  }

 private:
  __device__ __forceinline__ static int stage(int number) { return number & (S::kStages - 1); }
  __device__ __forceinline__ static uint32_t parity(int number) { return number / S::kStages & 1; }
  /// The bytes of a row that this lane copies, and the first row.
  __device__ __forceinline__ static int unit() { return threadIdx.x % 32 % kUnits; }
  __device__ __forceinline__ static int first_row() { return threadIdx.x % 32 / kUnits; }

  /// Begins to load the next tile. Without any, blocks_ becomes 0.
  __device__ __forceinline__ void open() {
    const DealtTile dealt = deal(args_, tile_);
    block_ = 0;
    blocks_ = dealt.blocks;
    if (blocks_ == 0) return;
    row_ = row_of(dealt, 0);
    next_row_ = row_of(dealt, 1);
  }

  /// Row of the pools where the warp's keys of a block begin. What lies behind the last key's page repeats that: those
  /// keys are masked.
  __device__ __forceinline__ int row_of(const DealtTile& dealt, int block) const {
    const int key = block * kBlockKeys + warp_ * kWarpKeys, shift = args_.page_shift;
    const int page = __ldg(args_.pages + dealt.tile.pages + min(key >> shift, dealt.last_page));
    return (page * args_.kv_heads + dealt.kv_head << shift) + (key & ((1 << shift) - 1));
  }

  __device__ __forceinline__ void copy_rows(uint32_t stage, const bf16* pool) const {
    if (unit() * 8 >= args_.head_dim) return;
    const bf16* const from = pool + int64_t(row_ + first_row()) * args_.head_dim + unit() * 8;
    const uint32_t to = stage + (warp_ * kWarpKeys + first_row()) * S::kRow + ((unit() ^ first_row()) << 4);
#pragma unroll
    for (int i = 0; i < kWarpKeys; i += kRowsAtOnce) {
      copy_16((to ^ (i % 8) << 4) + i * S::kRow, from + i * args_.head_dim);
    }
  }

  const PrefillArgs& args_;
  uint8_t* const memory_;
  const uint32_t shared_;
  const int warp_;
  /// Of the stage that is read.
  int number_;
  /// What is loaded next: a block of a tile. Rows of the pools where the warp's part of it and of the next one begin.
  int tile_ = 0, block_, blocks_, row_, next_row_;
};

}  // namespace detinfer::flashinfer
