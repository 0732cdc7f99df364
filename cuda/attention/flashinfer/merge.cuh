// The merge of a sequence's decode splits, by the thread block that finishes the last of them.
#pragma once

#include "attention/flashinfer/step.cuh"
#include "attention/rules.cuh"
#include "core/ptx.cuh"

namespace detinfer::flashinfer {

/// Splits that are merged at once.
constexpr int kMergeSplits = 32;
/// Shared memory of a merge: the factors of so many splits for each of 16 rows.
constexpr int kMergeBytes = 16 * kMergeSplits * int(sizeof(float4));

/// @tparam D columns, at least head_dim @tparam kThreads that merge, with the named barrier 1
/// @tparam kOctets 1 for up to 8 query heads to a KV head, 2 for up to 16
template <int D, int kThreads, int kOctets>
class SplitMerge {
  static constexpr int kWarps = kThreads / 32, kColumns = D / 4, kItems = (kOctets * 8 * kColumns - 1) / kThreads + 1;

 public:
  /// @param memory kMergeBytes of shared memory @param flag 4 bytes of it
  __device__ __forceinline__ SplitMerge(const StepArgs& args, int head_dim, uint8_t* memory, uint8_t* flag)
      : args_(args),
        head_dim_(head_dim),
        group_(args.heads / args.kv_heads),
        factors_(reinterpret_cast<float4*>(memory)),
        flag_(reinterpret_cast<volatile int*>(flag)) {}

  /// Row of the workspace of a split's first query head.
  __device__ __forceinline__ int64_t partial_row(int split, int kv_head) const {
    return int64_t(split) * args_.heads + kv_head * group_;
  }

  /// Whether all other splits of the sequence are in the workspace; exactly one block sees that.
  __device__ __forceinline__ bool is_last(const DecodeSplit& split, int kv_head) const {
    __threadfence();
    sync();
    if (threadIdx.x == 0) {
      int* const counter = args_.counters + split.counter * args_.kv_heads + kv_head;
      const bool last = atomicAdd(counter, 1) == split.splits - 1;
      if (last) *counter = 0;
      *flag_ = last;
    }
    sync();
    const bool last = *flag_;
    if (last) __threadfence();
    return last;
  }

  /// Merges the splits of a sequence from left to right. The factors depend on the maxima alone, so a warp finds those
  /// of 32 splits at once by a prefix maximum; the sums are then a chain of fma's in each column.
  __device__ __forceinline__ void merge(const DecodeSplit& split, int kv_head) const {
    constexpr int kAtOnce = kItems <= 2 ? 16 : 4, kRounds = kOctets * 8 / kWarps;
    float4 total[kItems];
    float total_sum[kItems], running[kRounds];
#pragma unroll
    for (int i = 0; i < kItems; ++i) {
      total[i] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
      total_sum[i] = 0.0f;
    }
#pragma unroll
    for (int i = 0; i < kRounds; ++i) running[i] = kMinusInfinity;
    for (int base = 0; base < split.splits; base += kMergeSplits) {
      const int count = min(kMergeSplits, split.splits - base);
      const int64_t first = partial_row(split.partial + base, kv_head);
      sync();
#pragma unroll
      for (int i = 0; i < kRounds; ++i) {
        const int row = i * kWarps + threadIdx.x / 32;
        if (row < group_) find_factors(first + row, count, running[i], factors_ + row * kMergeSplits);
      }
      sync();
#pragma unroll
      for (int i = 0; i < kItems; ++i) {
        const int item = i * kThreads + threadIdx.x, row = item / kColumns, column = item % kColumns * 4;
        if (row >= group_ || column >= head_dim_) continue;
        const float* const from = args_.partial_sums + (first + row) * head_dim_ + column;
        const int64_t stride = int64_t(args_.heads) * head_dim_;
        for (int s = 0; s < count; s += kAtOnce) {
          float4 v[kAtOnce];
#pragma unroll
          for (int u = 0; u < kAtOnce; ++u) {
            v[u] = __ldcg(reinterpret_cast<const float4*>(from + min(s + u, count - 1) * stride));
          }
#pragma unroll
          for (int u = 0; u < kAtOnce; ++u) {
            if (s + u >= count) break;
            const float4 f = factors_[row * kMergeSplits + s + u];
            total[i].x = __fmaf_rn(v[u].x, f.y, total[i].x * f.x);
            total[i].y = __fmaf_rn(v[u].y, f.y, total[i].y * f.x);
            total[i].z = __fmaf_rn(v[u].z, f.y, total[i].z * f.x);
            total[i].w = __fmaf_rn(v[u].w, f.y, total[i].w * f.x);
            total_sum[i] = __fmaf_rn(f.z, f.y, total_sum[i] * f.x);
          }
        }
      }
    }
#pragma unroll
    for (int i = 0; i < kItems; ++i) {
      const int item = i * kThreads + threadIdx.x, row = item / kColumns, column = item % kColumns * 4;
      if (row >= group_ || column >= head_dim_) continue;
      const float inverse = __fdiv_rn(1.0f, total_sum[i]);
      const int64_t at = (int64_t(split.row) * args_.heads + kv_head * group_ + row) * head_dim_ + column;
      const float4 o =
          make_float4(total[i].x * inverse, total[i].y * inverse, total[i].z * inverse, total[i].w * inverse);
      if (args_.out_f32 != nullptr) {
        *reinterpret_cast<float4*>(args_.out_f32 + at) = o;
      } else {
        *reinterpret_cast<uint2*>(args_.out + at) = make_uint2(pack_bf16(o.x, o.y), pack_bf16(o.z, o.w));
      }
    }
  }

 private:
  __device__ __forceinline__ static void sync() { named_barrier_sync(1, kThreads); }

  /// Lane i finds (factor of the total, factor of the split, sum of the split) of split i of a row.
  /// @param running maximum of the splits before, brought up to date
  __device__ __forceinline__ void find_factors(int64_t partial, int count, float& running, float4* factors) const {
    const int i = threadIdx.x % 32;
    float2 rules = make_float2(kMinusInfinity, 0.0f);
    if (i < count) rules = __ldcg(args_.partial_rules + partial + int64_t(i) * args_.heads);
    float merged = fmaxf(running, rules.x);
#pragma unroll
    for (int distance = 1; distance < 32; distance *= 2) {
      const float before = __shfl_up_sync(~0u, merged, distance);
      if (i >= distance) merged = fmaxf(merged, before);
    }
    const float above = __shfl_up_sync(~0u, merged, 1);
    const float before = i == 0 ? running : above;
    if (i < count) factors[i] = make_float4(rescale(before, merged), rescale(rules.x, merged), rules.y, 0.0f);
    running = __shfl_sync(~0u, merged, 31);
  }

  const StepArgs& args_;
  const int head_dim_;
  const int group_;
  float4* const factors_;
  volatile int* const flag_;
};

}  // namespace detinfer::flashinfer
