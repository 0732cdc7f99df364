// The merging warps of decoding. Each has its own columns of every sequence.
#pragma once

#include "attention/decode/shared.cuh"

namespace detinfer::attention {

template <template <int, int> class LoaderOf, int D, int kOctets>
class DecodeMerger {
  using Shared = DecodeShared<D, kOctets>;
  using Loader = LoaderOf<D, kOctets>;
  /// A row has 8 lanes, each with so many columns that lie together.
  static constexpr int kLanes = 8, kColumns = D / kMergeWarps / kLanes;
  /// Splits that are merged at once; each lane keeps the factors of every eighth.
  static constexpr int kAtOnce = D > 128 ? 8 : 16, kTurns = kAtOnce / kLanes;

 public:
  __device__ __forceinline__ DecodeMerger(const DecodeArgs& args, uint8_t* memory)
      : args_(args),
        memory_(memory),
        group_(args.heads / args.kv_heads),
        warp_(threadIdx.x / 32 - kDecodeWarps),
        lane_(threadIdx.x % 32) {}

  __device__ __forceinline__ void run() {
    const uint32_t shared = shared_address(memory_);
    RingPosition<Shared::kSlots> slots;
    for (bool first = true;; first = false, slots.advance()) {
      Loader::wait(Shared::slot_full(shared, slots.stage), slots.parity);
      const DecodeTask task =
          *reinterpret_cast<const DecodeTask*>(memory_ + Shared::kSlot + slots.stage * Shared::kSlotBytes);
      if (task.keys == 0) return;
      // Only formally: the producers have waited.
      if (first) wait_for_inputs();
      Loader::wait(Shared::slot_stored(shared, slots.stage), slots.parity);
      warp_arrive(Shared::slot_empty(shared, slots.stage));
      if (task.splits > 1 && counts_last(task, slots.stage)) merge(task);
    }
  }

 private:
  /// Counts a split that the block's consumers have stored. @return whether all others of the sequence are in the
  /// workspace, too; exactly one block sees that
  __device__ __forceinline__ bool counts_last(const DecodeTask& task, int slot) const {
    auto* const last = reinterpret_cast<volatile int*>(memory_ + Shared::kLast) + slot;
    // One thread for all: a count is a memory barrier, which takes microseconds behind the tiles that are under way.
    if (warp_ == 0 && lane_ == 0) {
      int* const counter = args_.counters + task.counter * args_.kv_heads + task.kv_head;
      int before;
      asm volatile("atom.acq_rel.gpu.global.add.s32 %0, [%1], 1;" : "=r"(before) : "l"(counter) : "memory");
      *last = before == task.splits - 1;
      if (*last) *counter = 0;
    }
    named_barrier_sync(2, kMergeWarps * 32);
    return *last;
  }

  /// Merges a sequence's splits from left to right: a chain of fma's in each column. The factors depend on the maxima
  /// alone, so they come from prefix maxima.
  __device__ __forceinline__ void merge(const DecodeTask& task) const {
    const int i = lane_ % kLanes, column = (warp_ * kLanes + i) * kColumns;
    const int head_dim = Loader::kPadded ? args_.head_dim : D;
    const bool has_columns = column < head_dim;
    for (int first_row = 0; first_row < group_; first_row += 32 / kLanes) {
      // Lanes without a row repeat the last one.
      const int own = first_row + lane_ / kLanes, row = min(own, group_ - 1);
      const int64_t first = partial_row(args_, task) + row;
      float total[kColumns] = {}, total_sum = 0.0f, running = kMinusInfinity;
      for (int base = 0; base < task.splits; base += kAtOnce) {
        const int count = min(kAtOnce, task.splits - base);
        const auto* from = args_.partial_sums + (first + int64_t(base) * args_.heads) * head_dim + column;
        const auto* const rules_from = args_.partial_rules + first + int64_t(base) * args_.heads;
        float2 rules[kTurns], factors[kTurns];
        float sums[kAtOnce][kColumns];
#pragma unroll
        for (int t = 0; t < kTurns; ++t) {
          const int s = t * kLanes + i;
          rules[t] = s < count ? __ldcg(rules_from + s * args_.heads) : make_float2(kMinusInfinity, 0.0f);
        }
#pragma unroll
        for (int s = 0; s < kAtOnce; ++s, from += args_.heads * head_dim) {
          if (s >= count) break;
          if (has_columns) load(sums[s], from);
        }
#pragma unroll
        for (int t = 0; t < kTurns; ++t) factors[t] = find_factors(rules[t].x, running);
#pragma unroll
        for (int s = 0; s < kAtOnce; ++s) {
          if (s >= count) break;
          const float old = from_lane(factors[s / kLanes].x, s), factor = from_lane(factors[s / kLanes].y, s);
#pragma unroll
          for (int c = 0; c < kColumns; ++c) total[c] = __fmaf_rn(sums[s][c], factor, total[c] * old);
          total_sum = __fmaf_rn(from_lane(rules[s / kLanes].y, s), factor, total_sum * old);
        }
      }
      if (own < group_ && has_columns) {
        const int64_t head = int64_t(task.row) * args_.heads + task.kv_head * group_ + row;
        store(head * head_dim + column, total, __fdiv_rn(1.0f, total_sum));
      }
      __syncwarp();
    }
  }

  /// Lane i of a row gives the maximum of the i-th of eight splits.
  /// @param running maximum of the splits before, brought up to date
  /// @return its factors: of the total before it, and of the split
  __device__ __forceinline__ float2 find_factors(float maximum, float& running) const {
    const int i = lane_ % kLanes;
    float merged = fmaxf(running, maximum);
#pragma unroll
    for (int distance = 1; distance < kLanes; distance *= 2) {
      const float below = __shfl_up_sync(~0u, merged, distance, kLanes);
      if (i >= distance) merged = fmaxf(merged, below);
    }
    const float below = __shfl_up_sync(~0u, merged, 1, kLanes), before = i == 0 ? running : below;
    running = from_lane(merged, kLanes - 1);
    return make_float2(rescale(before, merged), rescale(maximum, merged));
  }

  __device__ __forceinline__ static float from_lane(float x, int s) {
    return __shfl_sync(~0u, x, s % kLanes, kLanes);
  }

  __device__ __forceinline__ static void load(float (&sums)[kColumns], const float* from) {
    if constexpr (kColumns % 4 == 0) {
#pragma unroll
      for (int c = 0; c < kColumns; c += 4) {
        const float4 v = __ldcg(reinterpret_cast<const float4*>(from + c));
        sums[c] = v.x, sums[c + 1] = v.y, sums[c + 2] = v.z, sums[c + 3] = v.w;
      }
    } else {
      const float2 v = __ldcg(reinterpret_cast<const float2*>(from));
      sums[0] = v.x, sums[1] = v.y;
    }
  }

  __device__ __forceinline__ void store(int64_t at, const float (&total)[kColumns], float inverse) const {
#pragma unroll
    for (int c = 0; c < kColumns; c += 2) {
      store_output(args_, at + c, make_float2(total[c] * inverse, total[c + 1] * inverse));
    }
  }

  const DecodeArgs& args_;
  uint8_t* const memory_;
  const int group_, warp_, lane_;
};

}  // namespace detinfer::attention
