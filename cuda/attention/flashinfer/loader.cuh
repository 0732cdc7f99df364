// How a block gets its work and the tiles of keys and values: every warp copies 16 rows of each, some tiles ahead of
// those that it computes with. The first warp also takes the pieces of work.
#pragma once

#include "attention/flashinfer/ampere.cuh"
#include "attention/flashinfer/work.cuh"

namespace detinfer::flashinfer {

template <int D>
class Loader {
  using S = Shared<D>;
  /// 16 bytes in a row, rows that a warp copies at once, keys of a warp in a tile: they share a page of every size.
  static constexpr int kUnits = D / 8, kRowsAtOnce = 32 / kUnits, kWarpKeys = kBlockKeys / kWarps;
  static_assert(kWarpKeys == 16);

 public:
  __device__ __forceinline__ Loader(const PrefillArgs& args, uint8_t* memory)
      : args_(args), memory_(memory), shared_(shared_address(memory)), warp_(own_warp()) {}

  /// Takes the first piece of work and fills the ring.
  __device__ __forceinline__ void start() {
    if (warp_ == 0) request(0, blockIdx.x);
    open();
#pragma unroll 1
    for (int i = 0; i < S::kStages - 1; ++i) feed(false);
  }

  /// Starts the copy of one more tile, if there is one; called once for each tile that the warp has read. The stage is
  /// that of the tile before it, so that a warp may lag by one.
  /// @param steady false while the ring is filled for the first time: the next piece of work is not waited for then
  __device__ __forceinline__ void feed(bool steady = true) {
    if (blocks_ == 0) return;
    if (block_ == blocks_) {
      take_next();
      open();
      if (blocks_ == 0) return;
    }
    const uint32_t stage = shared_ + ring_.stage * S::kStage;
    barrier_wait(S::empty(shared_, ring_.stage), ring_.parity ^ 1);
    copy_rows(stage, values_turn_ ? args_.values : args_.keys);
    arrive_when_copied(S::full(shared_, ring_.stage));
    ring_.advance();
    if (values_turn_) {
      ++block_;
      page_ = next_page_;
      next_page_ = page_of(block_ + 1);
    }
    values_turn_ = !values_turn_;
    if (steady) take_next();
  }

 private:
  __device__ __forceinline__ static int lane() { return threadIdx.x % 32; }
  /// The bytes of a row that this lane copies, and the first row.
  __device__ __forceinline__ static int unit() { return lane() % kUnits; }
  __device__ __forceinline__ static int first_row() { return lane() / kUnits; }
  __device__ __forceinline__ bool copies() const { return unit() * 8 < args_.head_dim; }

  /// The warp copies the plan's record of a number into the slot of the block's n-th piece of work.
  __device__ __forceinline__ void request(int n, int number) {
    const uint32_t slot = shared_ + uint32_t(reinterpret_cast<const uint8_t*>(&S::slot(memory_, n)) - memory_);
    if (lane() == 0) {
      asm volatile("st.shared.b32 [%0], %1;" ::"r"(slot + 16), "r"(number) : "memory");
      barrier_arrive(S::dealt(shared_, n));
    } else if (lane() == 1) {
      if (number < args_.tile_count * args_.kv_heads) copy_16(slot, args_.tiles + number / args_.kv_heads);
      arrive_when_copied(S::dealt(shared_, n));
    }
  }

  /// The first warp requests the piece of work behind the one being loaded, once.
  __device__ __forceinline__ void take_next() {
    if (requested_ || warp_ != 0) return;
    request(work_number_, int(gridDim.x) + __shfl_sync(~0u, taken_, 0));
    requested_ = true;
  }

  /// Begins to load the next piece of work. Without any, blocks_ becomes 0.
  __device__ __forceinline__ void open() {
    const Slot& slot = wait_dealt<D>(memory_, shared_, work_number_++);
    const int tiles = args_.tile_count * args_.kv_heads;
    // The plan was brought by a copy, see core/launch.cuh; everything else may be of the kernel before.
    if (work_number_ == 1) wait_unless_idle(slot.number < tiles);
    block_ = blocks_ = 0;
    if (slot.number >= tiles) {
      if (threadIdx.x == 0) leave_queue(args_, tiles);
      return;
    }
    // Asked for long before it is needed.
    if (threadIdx.x == 0) taken_ = atomicAdd(args_.queue, 1);
    requested_ = false;
    kv_head_ = slot.number % args_.kv_heads;
    const int last_key = slot.tile.start + slot.tile.positions - 1;
    pages_ = args_.pages + slot.tile.pages;
    blocks_ = last_key / kBlockKeys + 1;
    last_page_ = last_key >> args_.page_shift;
    page_ = page_of(0);
    next_page_ = page_of(1);
  }

  /// Key of the warp's first row in a block.
  __device__ __forceinline__ int key_of(int block) const { return block * kBlockKeys + warp_ * kWarpKeys; }
  /// Its page. What lies behind the last key's page repeats that: those keys are masked.
  __device__ __forceinline__ int page_of(int block) const {
    return pages_[min(key_of(block) >> args_.page_shift, last_page_)];
  }

  __device__ __forceinline__ void copy_rows(uint32_t stage, const bf16* pool) const {
    if (!copies()) return;
    const int slot = key_of(block_) & ((1 << args_.page_shift) - 1), dim = args_.head_dim;
    const int64_t row = (int64_t(page_) * args_.kv_heads + kv_head_ << args_.page_shift) + slot + first_row();
    const bf16* const from = pool + row * dim + unit() * 8;
    const uint32_t to = stage + (warp_ * kWarpKeys + first_row()) * S::kRow + unit() * 16;
#pragma unroll
    for (int i = 0; i < kWarpKeys; i += kRowsAtOnce) copy_16(to + i * S::kRow, from + i * dim);
  }

  const PrefillArgs& args_;
  uint8_t* const memory_;
  const uint32_t shared_;
  const int warp_;
  RingPosition<S::kStages> ring_;
  /// Of the piece of work that is being loaded: `block_` of `blocks_` is next.
  int blocks_, block_, kv_head_, last_page_, page_, next_page_;
  const int32_t* pages_;
  bool values_turn_ = false;
  /// Pieces that were opened; what the queue gave for the next one, and whether that has been requested.
  int work_number_ = 0, taken_ = 0;
  bool requested_ = false;
};

}  // namespace detinfer::flashinfer
