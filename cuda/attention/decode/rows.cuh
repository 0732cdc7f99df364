// The consumers' side of decoding, a split at a time. Rows of a tile are query heads. A warp computes the scores of 16
// keys of each block, and its own columns of the sums of values, for which the weights of all keys go through shared
// memory. The warps meet twice in a split: to know its maxima, and to have its weights.
#pragma once

#include "attention/decode/rotation.cuh"

namespace detinfer::attention {

template <template <int, int> class LoaderOf, int D, int kOctets, bool kRotates>
class DecodeRows {
  using Shared = DecodeShared<D, kOctets>;
  using Loader = LoaderOf<D, kOctets>;
  static constexpr int kWarpKeys = kBlockKeys / kDecodeWarps, kKeyTiles = kWarpKeys / 8;
  static constexpr int kWarpColumns = D / kDecodeWarps, kColumnTiles = kWarpColumns / 8;

 public:
  __device__ __forceinline__ DecodeRows(const DecodeArgs& args, uint8_t* memory)
      : args_(args), memory_(memory), shared_(shared_address(memory)), group_(args.heads / args.kv_heads) {}

  __device__ __forceinline__ void run() {
    for (bool first = true;; first = false, slots_.advance()) {
      const int at = Shared::kSlot + slots_.stage * Shared::kSlotBytes;
      Loader::wait(Shared::slot_full(shared_, slots_.stage), slots_.parity);
      task_ = *reinterpret_cast<const DecodeTask*>(memory_ + at);
      if (task_.keys == 0) return;
      if constexpr (kRotates) {
        const DecodeRotation<D, kOctets> rotation(args_, task_);
        if (first) wait_for_inputs();
        rotation.run(memory_ + at);
        sync();
      } else if (first) {
        wait_for_inputs();  // only formally: the producers have waited
      }
      load_queries(shared_ + at + Shared::kQueries);
      run_split();
      if (task_.splits == 1) {
        store_rows();
      } else {
        store_partial();
      }
      warp_arrive(Shared::slot_stored(shared_, slots_.stage));
    }
  }

 private:
  __device__ __forceinline__ static int warp() { return threadIdx.x / 32; }
  __device__ __forceinline__ static int lane() { return threadIdx.x % 32; }
  __device__ __forceinline__ static int quad() { return threadIdx.x % 32 / 4; }
  __device__ __forceinline__ static int in_quad() { return threadIdx.x % 4; }
  __device__ __forceinline__ static void sync() { named_barrier_sync(1, kDecodeConsumers); }
  __device__ __forceinline__ int head_dim() const { return Loader::kPadded ? args_.head_dim : D; }
  /// Whether the head has this warp's n-th eight columns.
  __device__ __forceinline__ bool has_column(int n) const { return warp() * kWarpColumns + n * 8 < head_dim(); }

  __device__ __forceinline__ void load_queries(uint32_t from) {
#pragma unroll
    for (int octet = 0; octet < 2; ++octet) {
      const int row = octet * 8 + quad();
      const bool used = octet < kOctets && row < group_;
#pragma unroll
      for (int k = 0; k < D / 16; ++k) {
        const uint32_t at = from + row * Shared::kQueryRow + (k * 16 + 2 * in_quad()) * 2;
        queries_[k][octet] = used ? load_word(at) : 0;
        queries_[k][octet + 2] = used ? load_word(at + 16) : 0;
      }
    }
  }

  __device__ __forceinline__ static uint32_t load_word(uint32_t at) {
    uint32_t word;
    asm volatile("ld.shared.b32 %0, [%1];" : "=r"(word) : "r"(at) : "memory");
    return word;
  }

  __device__ __forceinline__ void run_split() {
    const int blocks = (task_.keys + kBlockKeys - 1) / kBlockKeys;
    // Key 8 · n + e of this thread in block j is visible up to the limit less j blocks.
    const int limit = task_.keys - 1 - warp() * kWarpKeys - 2 * in_quad();
    float scores[kSplitBlocks][kKeyTiles][4];
    // The maxima of a block are found under the products of the next one.
#pragma unroll
    for (int j = 0; j <= kSplitBlocks; ++j) {
      if (j < kSplitBlocks && j < blocks) {
        Loader::wait(Shared::full(shared_, ring_.stage), ring_.parity);
        if (kRotates && j == blocks - 1) put_new_key();
        compute_scores(scores[j]);
        release_tile();
      }
      if (j > 0) find_maxima(scores[j - 1], j - 1, limit - (j - 1) * kBlockKeys);
      if (j >= blocks) break;
    }
    sync();
#pragma unroll
    for (int j = 0; j < kSplitBlocks; ++j) {
      if (j >= blocks) break;
#pragma unroll
      for (int octet = 0; octet < kOctets; ++octet) {
        const float a = block_maximum(j, octet * 8 + quad()) * args_.scale;
        max_[j][octet] = j == 0 ? a : next_max(max_[j - 1][octet], a);
        last_max_[octet] = max_[j][octet];
        weigh(scores[j], j, octet, limit - j * kBlockKeys);
      }
    }
    sync();
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      sums_[i] = 0.0f;
#pragma unroll
      for (int n = 0; n < kColumnTiles; ++n) out_[n][i] = 0.0f;
    }
#pragma unroll
    for (int j = 0; j < kSplitBlocks; ++j) {
      if (j >= blocks) break;
      if (j > 0) scale_sums(max_[j - 1], max_[j]);
      Loader::wait(Shared::full(shared_, ring_.stage), ring_.parity);
      if (kRotates && j == blocks - 1) put_new_value();
      add_values(j);
      release_tile();
    }
  }

  /// Puts the new key, if the split has one, into its last tile: for the warp that computes its scores.
  __device__ __forceinline__ void put_new_key() const {
    const int in_block = (task_.keys - 1) % kBlockKeys;
    if (task_.new_row < 0 || in_block / kWarpKeys != warp()) return;
    if (lane() < D / 8) put_in_tile(Shared::kNewKey, in_block, lane());
    __syncwarp();
  }

  /// The same for its value: each warp its own columns.
  __device__ __forceinline__ void put_new_value() const {
    if (task_.new_row < 0) return;
    const int in_block = (task_.keys - 1) % kBlockKeys;
    if (lane() < kColumnTiles) put_in_tile(Shared::kNewValue, in_block, warp() * kColumnTiles + lane());
    __syncwarp();
  }

  /// @param from in the slot @param row of the tile @param chunk of eight columns
  __device__ __forceinline__ void put_in_tile(int from, int row, int chunk) const {
    uint8_t* const piece = memory_ + ring_.stage * Shared::kTile + chunk / 8 * Shared::kPiece;
    const uint8_t* const slot = memory_ + Shared::kSlot + slots_.stage * Shared::kSlotBytes;
    *reinterpret_cast<uint4*>(piece + row * 128 + ((chunk ^ row) % 8 << 4)) =
        *reinterpret_cast<const uint4*>(slot + from + chunk * 16);
    Loader::tile_written();
  }

  __device__ __forceinline__ void release_tile() {
    warp_arrive(Shared::empty(shared_, ring_.stage));
    ring_.advance();
  }

  __device__ __forceinline__ void compute_scores(float (&scores)[kKeyTiles][4]) const {
    const int swizzle = lane() % 8, matrix = lane() / 8;
    const uint32_t keys = shared_ + ring_.stage * Shared::kTile + (warp() * kWarpKeys + swizzle) * 128;
#pragma unroll
    for (int n = 0; n < kKeyTiles; ++n) scores[n][0] = scores[n][1] = scores[n][2] = scores[n][3] = 0.0f;
#pragma unroll
    for (int k = 0; k < D / 16; k += 2) {
#pragma unroll
      for (int n = 0; n < kKeyTiles; ++n) {
        uint32_t fragment[4];
        load_matrices(fragment,
                      keys + n * 1024 + k / 4 * Shared::kPiece + ((((k % 4) * 2 + matrix) ^ swizzle) << 4));
        mma_m16n8k16(scores[n], queries_[k], fragment[0], fragment[1]);
        mma_m16n8k16(scores[n], queries_[k + 1], fragment[2], fragment[3]);
      }
    }
  }

  __device__ __forceinline__ uint32_t maxima_of(int block, int row) const {
    return shared_ + Shared::kMaxima + (block * 8 * kOctets + row) * kDecodeWarps * 4;
  }

  /// Masks the scores, and stores the largest of this warp for each row.
  __device__ __forceinline__ void find_maxima(float (&scores)[kKeyTiles][4], int j, int limit) const {
#pragma unroll
    for (int octet = 0; octet < kOctets; ++octet) {
      float a = kMinusInfinity;
#pragma unroll
      for (int n = 0; n < kKeyTiles; ++n) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float& score = scores[n][2 * octet + e];
          if (8 * n + e > limit) score = kMinusInfinity;
          a = fmaxf(a, score);
        }
      }
      a = fmaxf(a, __shfl_xor_sync(~0u, a, 1));
      a = fmaxf(a, __shfl_xor_sync(~0u, a, 2));
      const uint32_t at = maxima_of(j, octet * 8 + quad()) + warp() * 4;
      if (in_quad() == 0) asm volatile("st.shared.f32 [%0], %1;" ::"r"(at), "f"(a) : "memory");
    }
  }

  /// The largest score of a row in a block.
  __device__ __forceinline__ float block_maximum(int block, int row) const {
    float a = kMinusInfinity;
#pragma unroll
    for (int i = 0; i < kDecodeWarps; i += 4) {
      float4 m;
      asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
                   : "=f"(m.x), "=f"(m.y), "=f"(m.z), "=f"(m.w)
                   : "r"(maxima_of(block, row) + i * 4)
                   : "memory");
      a = fmaxf(a, fmaxf(fmaxf(m.x, m.y), fmaxf(m.z, m.w)));
    }
    return a;
  }

  /// Stores the weights of this thread's keys for all warps.
  __device__ __forceinline__ void weigh(const float (&scores)[kKeyTiles][4], int j, int octet, int limit) const {
#pragma unroll
    for (int n = 0; n < kKeyTiles; ++n) {
      float w[2];
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        w[e] = weight(__fmaf_rn(scores[n][2 * octet + e], args_.scale, -max_[j][octet]));
        if (8 * n + e > limit) w[e] = 0.0f;
      }
      const int key = j * kBlockKeys + warp() * kWarpKeys + n * 8 + 2 * in_quad();
      const uint32_t at = shared_ + Shared::kWeights + (octet * 8 + quad()) * Shared::kWeightRow + key * 2;
      asm volatile("st.shared.b32 [%0], %1;" ::"r"(at), "r"(pack_bf16(w[0], w[1])) : "memory");
    }
  }

  /// From sums against one maximum to sums against another.
  __device__ __forceinline__ void scale_sums(const float (&from)[kOctets], const float (&to)[kOctets]) {
#pragma unroll
    for (int octet = 0; octet < kOctets; ++octet) {
      const float factor = rescale(from[octet], to[octet]);
#pragma unroll
      for (int i = 2 * octet; i < 2 * octet + 2; ++i) {
        sums_[i] = sums_[i] * factor;
#pragma unroll
        for (int n = 0; n < kColumnTiles; ++n) out_[n][i] = out_[n][i] * factor;
      }
    }
  }

  /// Weights of the 32 keys from `key` on, as fragments of two steps.
  __device__ __forceinline__ void load_weights(uint32_t (&w)[2][4], int key) const {
    const uint32_t weights = shared_ + Shared::kWeights + key * 2;
    uint32_t fragment[4];
    if constexpr (kOctets == 1) {
      load_matrices(fragment, weights + lane() % 8 * Shared::kWeightRow + lane() / 8 * 16);
#pragma unroll
      for (int step = 0; step < 2; ++step) {
        w[step][0] = fragment[2 * step];
        w[step][1] = 0;
        w[step][2] = fragment[2 * step + 1];
        w[step][3] = 0;
      }
    } else {
      const uint32_t at = weights + lane() % 16 * Shared::kWeightRow + lane() / 16 * 16;
      load_matrices(w[0], at);
      load_matrices(w[1], at + 32);
    }
  }

  __device__ __forceinline__ void add_values(int j) {
    const int swizzle = lane() % 8, matrix = lane() / 8, column = warp() * kWarpColumns;
    const uint32_t values = shared_ + ring_.stage * Shared::kTile + column / 64 * Shared::kPiece + swizzle * 128;
    const int unit = column % 64 / 8;
#pragma unroll
    for (int k = 0; k < kBlockKeys; k += 32) {
      uint32_t w[2][4];
      load_weights(w, j * kBlockKeys + k);
      // Four matrices: two steps of 8 columns, or one step of 16.
      constexpr int kPairs = kColumnTiles / 2;
      uint32_t fragment[kColumnTiles][4];
#pragma unroll
      for (int i = 0; i < kColumnTiles; ++i) {
        const int key = k + (kPairs == 0 ? matrix * 8 : i / max(kPairs, 1) * 16 + matrix % 2 * 8);
        const int chunk = unit + (kPairs == 0 ? 0 : i % max(kPairs, 1) * 2 + matrix / 2);
        load_matrices_transposed(fragment[i], values + key * 128 + ((chunk ^ swizzle) << 4));
      }
#pragma unroll
      for (int step = 0; step < 2; ++step) {
        mma_m16n8k16(sums_, w[step], 0x3F803F80, 0x3F803F80);
#pragma unroll
        for (int n = 0; n < kColumnTiles; ++n) {
          const uint32_t* const b = &fragment[step * kPairs + n / 2][kPairs == 0 ? 2 * step : n % 2 * 2];
          mma_m16n8k16(out_[n], w[step], b[0], b[1]);
        }
      }
    }
  }

  /// The only split of a sequence.
  __device__ __forceinline__ void store_rows() const {
#pragma unroll
    for (int octet = 0; octet < kOctets; ++octet) {
      const int row = octet * 8 + quad();
      if (row >= group_) continue;
      const float inverse = __fdiv_rn(1.0f, sums_[2 * octet]);
      const int64_t head = int64_t(task_.row) * args_.heads + task_.kv_head * group_ + row;
#pragma unroll
      for (int n = 0; n < kColumnTiles; ++n) {
        if (!has_column(n)) break;
        const int64_t at = head * head_dim() + warp() * kWarpColumns + n * 8 + 2 * in_quad();
        store_output(args_, at, make_float2(out_[n][2 * octet] * inverse, out_[n][2 * octet + 1] * inverse));
      }
    }
  }

  __device__ __forceinline__ void store_partial() const {
    const int64_t first = partial_row(args_, task_) + task_.split * args_.heads;
#pragma unroll
    for (int octet = 0; octet < kOctets; ++octet) {
      const int row = octet * 8 + quad();
      if (row >= group_) continue;
#pragma unroll
      for (int n = 0; n < kColumnTiles; ++n) {
        if (!has_column(n)) break;
        const int64_t at = (first + row) * head_dim() + warp() * kWarpColumns + n * 8 + 2 * in_quad();
        store_to_stay(args_.partial_sums + at, out_[n][2 * octet], out_[n][2 * octet + 1]);
      }
      if (warp() == 0 && in_quad() == 0) {
        args_.partial_rules[first + row] = make_float2(last_max_[octet], sums_[2 * octet]);
      }
    }
  }

  const DecodeArgs& args_;
  uint8_t* const memory_;
  const uint32_t shared_;
  const int group_;
  RingPosition<Shared::kStages> ring_;
  RingPosition<Shared::kSlots> slots_;
  DecodeTask task_;
  uint32_t queries_[D / 16][4];
  float out_[kColumnTiles][4], sums_[4];
  /// After each block of keys, and after the last.
  float max_[kSplitBlocks][kOctets], last_max_[kOctets];
};

}  // namespace detinfer::attention
