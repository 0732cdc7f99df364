// The ring of blocks of keys and values. Every warp copies 16 rows of each, half a ring ahead of what it reads itself,
// so that it waits for no warp that lags less than that.
#pragma once

#include "attention/flashinfer/work.cuh"

namespace detinfer::flashinfer {

template <int D, bool kShared>
class Ring {
  using S = Shared<D>;
  /// Keys of a warp in a block: they share a page of every size.
  static constexpr int kWarpKeys = kBlockKeys / kWarps;
  static constexpr int kAhead = S::kStages / 2;
  static_assert(kWarpKeys == 16);

 public:
  /// Fills half of the ring.
  __device__ __forceinline__ Ring(const PrefillArgs& args, uint32_t shared)
      : args_(args), shared_(shared), warp_(own_warp()) {
    open();
#pragma unroll 1
    for (number_ = -kAhead; number_ < 0; ++number_) feed();
  }

  /// Waits for the next stage. @return where it lies in shared memory
  __device__ __forceinline__ uint32_t wait() const {
    wait_for_phase(S::full(shared_, stage(number_)), parity(number_));
    return shared_ + stage(number_) * S::kStage;
  }

  /// Starts this warp's part of the copy of a stage, if there is another: once for each that it reads, while it does.
  __device__ __forceinline__ void feed() {
    if (end_ == 0) return;
    const int next = number_ + kAhead;
    wait_for_phase(S::empty(shared_, stage(next)), parity(next) ^ 1);
    copy_rows(shared_ + stage(next) * S::kStage, next & 1 ? args_.values : args_.keys);
    arrive_when_copied(S::full(shared_, stage(next)));
    if ((next & 1) == 0) return;
    if (++block_ == end_) {
      ++piece_;
      open();
    } else {
      page_ = next_page_;
      next_page_ = page_of(block_ + 1);
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

  /// Begins to load the next piece. Without any, end_ becomes 0.
  __device__ __forceinline__ void open() {
    const PrefillPiece piece = deal<kShared>(args_, piece_);
    block_ = piece.first;
    end_ = piece.end;
    if (end_ == 0) return;
    kv_head_ = piece.kv_head;
    pages_ = piece.tile.pages;
    last_page_ = (piece.tile.start + piece.tile.positions - 1) >> args_.page_shift;
    page_ = page_of(block_);
    next_page_ = page_of(block_ + 1);
  }

  __device__ __forceinline__ int key_of(int block) const { return block * kBlockKeys + warp_ * kWarpKeys; }
  /// The thread's row of four that it copies at once.
  __device__ __forceinline__ static int row() { return threadIdx.x % 32 / 8; }
  /// Page of the warp's keys of a block. What lies behind the last key's page repeats that: those keys are masked.
  /// Asked for by each thread's row: if the compiler knew that all lanes load the same, it would wait for the page at
  /// once.
  __device__ __forceinline__ int page_of(int block) const {
    return __ldg(args_.pages + pages_ + min((key_of(block) + row()) >> args_.page_shift, last_page_));
  }

  /// Four rows of 128 bytes at once.
  __device__ __forceinline__ void copy_rows(uint32_t stage, const bf16* pool) const {
    const int unit = threadIdx.x % 8;
    const int shift = args_.page_shift, slot = key_of(block_) & ((1 << shift) - 1);
    const int64_t pool_row = (int64_t(page_) * args_.kv_heads + kv_head_ << shift) + slot + row();
    const bf16* from = pool + pool_row * args_.head_dim + unit * 8;
    uint32_t to = stage + (warp_ * kWarpKeys + row()) * S::kRow + ((unit ^ row()) << 4);
#pragma unroll
    for (int rows = 0; rows < kWarpKeys; rows += 4) {
#pragma unroll
      for (int columns = 0; columns < D; columns += 64) {
        if (unit * 8 + columns < args_.head_dim) copy_16(to + columns * 2, from + columns);
      }
      from += 4 * args_.head_dim;
      to = (to ^ 64) + 4 * S::kRow;
    }
  }

  const PrefillArgs& args_;
  const uint32_t shared_;
  const int warp_;
  /// Of the stage that is read.
  int number_;
  /// What is loaded next: a block of a piece, and the pages of the warp's part of it and of the one behind.
  int piece_ = 0, block_, end_, kv_head_, pages_, last_page_, page_, next_page_;
};

}  // namespace detinfer::flashinfer
