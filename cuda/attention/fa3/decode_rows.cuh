// The consumers' side of decoding. Rows of a tile are query heads; a warp computes the scores of 32 keys each block, and
// of head_dim / 4 columns the sums, to which the weights of all keys go through shared memory.
#pragma once

#include "attention/fa3/decode.cuh"

namespace detinfer::fa3 {

/// @tparam kOctets 1 for up to 8 query heads to a KV head, 2 for up to 16
template <int D, int kOctets>
class DecodeRows {
  using Shared = DecodeShared<D>;
  static constexpr int kColumnTiles = D / kDecodeWarps / 8;

 public:
  __device__ __forceinline__ DecodeRows(const DecodeArgs& args, uint8_t* memory)
      : args_(args), memory_(memory), shared_(shared_address(memory)), group_(args.heads / args.kv_heads) {}

  __device__ __forceinline__ void run() {
    DecodeSplit split;
    const int32_t* pages;
    int kv_head;
    for (int n = 0;; ++n) {
      const bool more = read_split(args_, wait_dealt<D>(memory_, shared_, n), split, pages, kv_head);
      if (n == 0) wait_unless_idle(more);
      if (!more) return;
      load_queries(split, kv_head);
      const int blocks = (split.keys + kBlockKeys - 1) / kBlockKeys;
      for (int j = 0; j < blocks; ++j) run_block(j, split.keys - j * kBlockKeys);
      if (split.splits == 1) {
        store_rows(split, kv_head);
      } else {
        store_partial(split, kv_head);
        if (is_last(split, kv_head)) merge(split, kv_head);
      }
    }
  }

 private:
  __device__ __forceinline__ static int warp() { return threadIdx.x / 32; }
  __device__ __forceinline__ static int lane() { return threadIdx.x % 32; }
  __device__ __forceinline__ static int quad() { return threadIdx.x % 32 / 4; }
  __device__ __forceinline__ static int in_quad() { return threadIdx.x % 4; }
  __device__ __forceinline__ static void sync() { named_barrier_sync(1, kDecodeConsumers); }

  __device__ __forceinline__ int64_t head_of(const DecodeSplit& split, int kv_head) const {
    return int64_t(split.row) * args_.heads + kv_head * group_;
  }

  __device__ __forceinline__ void load_queries(const DecodeSplit& split, int kv_head) {
    const auto* const q = reinterpret_cast<const uint32_t*>(args_.q + head_of(split, kv_head) * D);
#pragma unroll
    for (int k = 0; k < D / 16; ++k) {
#pragma unroll
      for (int octet = 0; octet < 2; ++octet) {
        const int row = octet * 8 + quad();
        const bool used = octet < kOctets && row < group_;
        queries_[k][octet] = used ? q[row * (D / 2) + k * 8 + in_quad()] : 0;
        queries_[k][octet + 2] = used ? q[row * (D / 2) + k * 8 + 4 + in_quad()] : 0;
      }
    }
  }

  /// @param visible keys of the block that the row sees
  __device__ __forceinline__ void run_block(int j, int visible) {
    const uint32_t weights = shared_ + Shared::kWeights;
    auto* const maxima = reinterpret_cast<float*>(memory_ + Shared::kMaxima);
    float scores[4][4];
    barrier_wait(Shared::full(shared_, ring_.stage), ring_.parity);
    compute_scores(scores);
    release_tile();
    // Key 8 · n + e of this thread is visible up to the limit.
    const int limit = visible - 1 - warp() * 32 - 2 * in_quad();
#pragma unroll
    for (int octet = 0; octet < kOctets; ++octet) {
      float a = kMinusInfinity;
#pragma unroll
      for (int n = 0; n < 4; ++n) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float& score = scores[n][2 * octet + e];
          if (8 * n + e > limit) score = kMinusInfinity;
          a = fmaxf(a, score);
        }
      }
      a = fmaxf(a, __shfl_xor_sync(~0u, a, 1));
      a = fmaxf(a, __shfl_xor_sync(~0u, a, 2));
      if (in_quad() == 0) maxima[warp() * 16 + octet * 8 + quad()] = a;
    }
    sync();
#pragma unroll
    for (int octet = 0; octet < kOctets; ++octet) {
      const float* const m = maxima + octet * 8 + quad();
      const float a = fmaxf(fmaxf(m[0], m[16]), fmaxf(m[32], m[48])) * args_.scale;
      const float old = max_[octet];
      max_[octet] = j == 0 ? a : next_max(old, a);
      weigh(scores, octet, limit, weights);
      if (j == 0) {
        start_sums(octet);
      } else {
        scale_sums(octet, rescale(old, max_[octet]));
      }
    }
    sync();
    barrier_wait(Shared::full(shared_, ring_.stage), ring_.parity);
    add_values(weights);
    release_tile();
  }

  __device__ __forceinline__ void release_tile() {
    __syncwarp();
    if (lane() == 0) barrier_arrive(Shared::empty(shared_, ring_.stage));
    ring_.advance();
  }

  __device__ __forceinline__ void compute_scores(float (&scores)[4][4]) const {
    const int swizzle = lane() % 8, matrix = lane() / 8;
    const uint32_t keys = shared_ + ring_.stage * Shared::kTile + (warp() * 32 + swizzle) * 128;
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      scores[n][0] = scores[n][1] = scores[n][2] = scores[n][3] = 0.0f;
#pragma unroll
      for (int k = 0; k < D / 16; k += 2) {
        uint32_t fragment[4];
        load_matrices(fragment,
                      keys + n * 1024 + k / 4 * Shared::kPiece + ((((k % 4) * 2 + matrix) ^ swizzle) << 4));
        mma_m16n8k16(scores[n], queries_[k], fragment[0], fragment[1]);
        mma_m16n8k16(scores[n], queries_[k + 1], fragment[2], fragment[3]);
      }
    }
  }

  /// Stores the weights of this thread's keys for all warps.
  __device__ __forceinline__ void weigh(const float (&scores)[4][4], int octet, int limit, uint32_t weights) const {
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      float w[2];
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        w[e] = weight(__fmaf_rn(scores[n][2 * octet + e], args_.scale, -max_[octet]));
        if (8 * n + e > limit) w[e] = 0.0f;
      }
      const uint32_t at =
          weights + (octet * 8 + quad()) * Shared::kWeightRow + (warp() * 32 + n * 8 + 2 * in_quad()) * 2;
      asm volatile("st.shared.b32 [%0], %1;" ::"r"(at), "r"(pack_bf16(w[0], w[1])) : "memory");
    }
  }

  __device__ __forceinline__ void start_sums(int octet) {
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      sums_[2 * octet + e] = 0.0f;
#pragma unroll
      for (int n = 0; n < kColumnTiles; ++n) out_[n][2 * octet + e] = 0.0f;
    }
  }

  __device__ __forceinline__ void scale_sums(int octet, float factor) {
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      sums_[2 * octet + e] = sums_[2 * octet + e] * factor;
#pragma unroll
      for (int n = 0; n < kColumnTiles; ++n) out_[n][2 * octet + e] = out_[n][2 * octet + e] * factor;
    }
  }

  __device__ __forceinline__ void add_values(uint32_t weights) {
    const int swizzle = lane() % 8, matrix = lane() / 8, column = warp() * (D / kDecodeWarps);
    const uint32_t values = shared_ + ring_.stage * Shared::kTile + column / 64 * Shared::kPiece +
                            ((matrix & 1) * 8 + swizzle) * 128;
    const int unit = column % 64 / 8 + (matrix >> 1);
#pragma unroll
    for (int k = 0; k < kBlockKeys / 16; ++k) {
      uint32_t w[4] = {0, 0, 0, 0};
#pragma unroll
      for (int octet = 0; octet < kOctets; ++octet) {
        const uint32_t at = weights + (octet * 8 + quad()) * Shared::kWeightRow + (k * 16 + 2 * in_quad()) * 2;
        asm volatile("ld.shared.b32 %0, [%1];" : "=r"(w[octet]) : "r"(at) : "memory");
        asm volatile("ld.shared.b32 %0, [%1];" : "=r"(w[octet + 2]) : "r"(at + 16) : "memory");
      }
      mma_m16n8k16(sums_, w, 0x3F803F80, 0x3F803F80);
#pragma unroll
      for (int n = 0; n < kColumnTiles; n += 2) {
        uint32_t fragment[4];
        load_matrices_transposed(fragment, values + k * 2048 + (((unit + n) ^ swizzle) << 4));
        mma_m16n8k16(out_[n], w, fragment[0], fragment[1]);
        mma_m16n8k16(out_[n + 1], w, fragment[2], fragment[3]);
      }
    }
  }

  /// The only split of a sequence.
  __device__ __forceinline__ void store_rows(const DecodeSplit& split, int kv_head) {
#pragma unroll
    for (int octet = 0; octet < kOctets; ++octet) {
      const int row = octet * 8 + quad();
      if (row >= group_) continue;
      const float inverse = __fdiv_rn(1.0f, sums_[2 * octet]);
#pragma unroll
      for (int n = 0; n < kColumnTiles; ++n) {
        const int64_t at = (head_of(split, kv_head) + row) * D + warp() * (D / kDecodeWarps) + n * 8 + 2 * in_quad();
        const float a = out_[n][2 * octet] * inverse, b = out_[n][2 * octet + 1] * inverse;
        if (args_.out_f32 != nullptr) {
          *reinterpret_cast<float2*>(args_.out_f32 + at) = make_float2(a, b);
        } else {
          *reinterpret_cast<uint32_t*>(args_.out + at) = pack_bf16(a, b);
        }
      }
    }
  }

  /// Row of the workspace of a split's first query head.
  __device__ __forceinline__ int64_t partial_row(int split, int kv_head) const {
    return int64_t(split) * args_.heads + kv_head * group_;
  }

  __device__ __forceinline__ void store_partial(const DecodeSplit& split, int kv_head) {
    const int64_t first = partial_row(split.partial + split.split, kv_head);
#pragma unroll
    for (int octet = 0; octet < kOctets; ++octet) {
      const int row = octet * 8 + quad();
      if (row >= group_) continue;
#pragma unroll
      for (int n = 0; n < kColumnTiles; ++n) {
        const int64_t at = (first + row) * D + warp() * (D / kDecodeWarps) + n * 8 + 2 * in_quad();
        *reinterpret_cast<float2*>(args_.partial_sums + at) = make_float2(out_[n][2 * octet], out_[n][2 * octet + 1]);
      }
      if (warp() == 0 && in_quad() == 0) {
        args_.partial_rules[first + row] = make_float2(max_[octet], sums_[2 * octet]);
      }
    }
  }

  /// Whether all other splits of the sequence are in the workspace; exactly one block sees that.
  __device__ __forceinline__ bool is_last(const DecodeSplit& split, int kv_head) {
    auto* const flag = reinterpret_cast<volatile int*>(memory_ + Shared::kFlag);
    __threadfence();
    sync();
    if (threadIdx.x == 0) {
      int* const counter = args_.counters + split.counter * args_.kv_heads + kv_head;
      const bool last = atomicAdd(counter, 1) == split.splits - 1;
      if (last) *counter = 0;
      *flag = last;
    }
    sync();
    const bool last = *flag;
    if (last) __threadfence();
    return last;
  }

  /// Merges the splits of a sequence from left to right. The factors depend on the maxima alone, so a warp finds those of
  /// 32 splits at once by a prefix maximum; the sums are then a chain of fma's in each column.
  __device__ __forceinline__ void merge(const DecodeSplit& split, int kv_head) {
    constexpr int kColumns = D / 4, kItems = kOctets * 8 * kColumns / kDecodeConsumers;
    constexpr int kAtOnce = kItems <= 2 ? 16 : 4;
    auto* const factors = reinterpret_cast<float4*>(memory_ + Shared::kWeights);  // [16 rows][kMergeSplits]
    float4 total[kItems];
    float total_sum[kItems], running[kOctets * 2];
#pragma unroll
    for (int i = 0; i < kItems; ++i) {
      total[i] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
      total_sum[i] = 0.0f;
    }
#pragma unroll
    for (int i = 0; i < kOctets * 2; ++i) running[i] = kMinusInfinity;
    for (int base = 0; base < split.splits; base += kMergeSplits) {
      const int count = min(kMergeSplits, split.splits - base);
      const int64_t first = partial_row(split.partial + base, kv_head);
      sync();
#pragma unroll
      for (int i = 0; i < kOctets * 2; ++i) {
        const int row = i * kDecodeWarps + warp();
        if (row < group_) find_factors(first + row, count, running[i], factors + row * kMergeSplits);
      }
      sync();
#pragma unroll
      for (int i = 0; i < kItems; ++i) {
        const int item = i * kDecodeConsumers + threadIdx.x, row = item / kColumns;
        if (row >= group_) continue;
        const auto* const from = reinterpret_cast<const float4*>(args_.partial_sums) + (first + row) * kColumns +
                                 item % kColumns;
        const int64_t stride = int64_t(args_.heads) * kColumns;
        for (int s = 0; s < count; s += kAtOnce) {
          float4 v[kAtOnce];
#pragma unroll
          for (int u = 0; u < kAtOnce; ++u) v[u] = __ldcg(from + min(s + u, count - 1) * stride);
#pragma unroll
          for (int u = 0; u < kAtOnce; ++u) {
            if (s + u >= count) break;
            const float4 f = factors[row * kMergeSplits + s + u];
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
      const int item = i * kDecodeConsumers + threadIdx.x, row = item / kColumns;
      if (row >= group_) continue;
      const float inverse = __fdiv_rn(1.0f, total_sum[i]);
      const int64_t at = (head_of(split, kv_head) + row) * D + item % kColumns * 4;
      const float4 o = make_float4(total[i].x * inverse, total[i].y * inverse, total[i].z * inverse,
                                   total[i].w * inverse);
      if (args_.out_f32 != nullptr) {
        *reinterpret_cast<float4*>(args_.out_f32 + at) = o;
      } else {
        *reinterpret_cast<uint2*>(args_.out + at) = make_uint2(pack_bf16(o.x, o.y), pack_bf16(o.z, o.w));
      }
    }
  }

  /// Lane i finds (factor of the total, factor of the split, sum of the split) of split i of a row.
  /// @param running maximum of the splits before, brought up to date
  __device__ __forceinline__ void find_factors(int64_t partial, int count, float& running, float4* factors) const {
    const int i = lane();
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

  const DecodeArgs& args_;
  uint8_t* const memory_;
  const uint32_t shared_;
  const int group_;
  RingPosition<Shared::kStages> ring_;
  uint32_t queries_[D / 16][4];
  float out_[kColumnTiles][4], sums_[4] = {0.0f, 0.0f, 0.0f, 0.0f};
  float max_[kOctets];
};

}  // namespace detinfer::fa3
