// How decoding gets its tiles here: one warp of a thread block starts copies by TMA.
#pragma once

#include "attention/decode/shared.cuh"
#include "attention/fa3/kernels.cuh"

namespace detinfer::fa3 {

using namespace attention;

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

/// See attention/decode/shared.cuh.
template <int D, int kOctets>
class DecodeLoader {
  using Shared = DecodeShared<D, kOctets>;

 public:
  using Source = PoolMaps;
  static constexpr int kWarps = 1, kTileArrivals = 1, kTaskArrivals = 1;
  static constexpr bool kPadded = false;

  __device__ __forceinline__ static void barriers_ready() { barrier_init_done(); }
  __device__ __forceinline__ static void wait(uint32_t barrier, uint32_t parity) { barrier_wait(barrier, parity); }
  /// TMA writes there next.
  __device__ __forceinline__ static void tile_written() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  }

  __device__ __forceinline__ DecodeLoader(const PoolMaps& maps, const DecodeArgs& args, uint8_t* memory, int)
      : maps_{&maps.keys, &maps.values},
        args_(args),
        memory_(memory),
        shared_(shared_address(memory)),
        group_(args.heads / args.kv_heads),
        box_shift_(min(args.page_shift, 7)),
        leader_(elect_one()) {
    if (!leader_) return;
    prefetch_tensor_map(maps_[0]);
    prefetch_tensor_map(maps_[1]);
  }

  __device__ __forceinline__ int chunk_shift() const { return box_shift_; }

  __device__ __forceinline__ void hand_over(const DecodeTask& task, const RingPosition<Shared::kSlots>& slots) const {
    if (leader_) {
      const int at = Shared::kSlot + slots.stage * Shared::kSlotBytes;
      const uint32_t full = Shared::slot_full(shared_, slots.stage);
      barrier_wait(Shared::slot_empty(shared_, slots.stage), slots.parity ^ 1);
      *reinterpret_cast<DecodeTask*>(memory_ + at) = task;
      const int rows = task.keys > 0 && args_.rope.qkv == nullptr ? group_ : 0;
      barrier_expect(full, rows * D * 2);
      const bf16* const q = args_.rope.q + (int64_t(task.row) * args_.heads + task.kv_head * group_) * D;
      for (int r = 0; r < rows; ++r) {
        bulk_load(shared_ + at + Shared::kQueries + r * Shared::kQueryRow, q + r * D, D * 2, full);
      }
    }
    __syncwarp();
  }

  __device__ __forceinline__ void load_tile(bool values, int row, int j,
                                            const RingPosition<Shared::kStages>& ring) const {
    const uint32_t full = Shared::full(shared_, ring.stage), to = shared_ + ring.stage * Shared::kTile;
    if (leader_) {
      barrier_wait(Shared::empty(shared_, ring.stage), ring.parity ^ 1);
      barrier_expect(full, Shared::kTile);
    }
    const int boxes = kBlockKeys >> box_shift_;
    for (int box = 0; box < boxes; ++box) {
      const int y = __shfl_sync(~0u, row, j * boxes + box);
      if (leader_) {
#pragma unroll
        for (int piece = 0; piece < D / 64; ++piece) {
          tma_load_2d_once(to + piece * Shared::kPiece + (box * 128 << box_shift_), maps_[values], piece * 64, y, full);
        }
      }
    }
  }

 private:
  const CUtensorMap* const maps_[2];
  const DecodeArgs& args_;
  uint8_t* const memory_;
  const uint32_t shared_;
  const int group_, box_shift_;
  const bool leader_;
};

}  // namespace detinfer::fa3
