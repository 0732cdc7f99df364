// A team of warps that computes rows against blocks of 128 keys: scores are cut over the warps by keys and sums by
// columns, so that neither keys nor values are read by more warps than need be; weights go through shared memory.
#pragma once

#include "attention/flashinfer/ring.cuh"
#include "attention/rules.cuh"

namespace detinfer::flashinfer {

/// @tparam D columns in shared memory, zeros behind head_dim @tparam kTiles 16s of rows @tparam kMembers warps
template <int D, int kTiles, int kMembers>
class Team {
 protected:
  using S = Shared<D>;
  static constexpr int kKeys = kBlockKeys / kMembers, kKeyTiles = kKeys / 8, kColumnTiles = D / kMembers / 8;
  /// Where a team has as many warps as tiles, each sums the weights of one tile, its tile 0; else all of them do.
  static constexpr bool kShareSums = kMembers == kTiles;
  static constexpr int kSumTiles = kShareSums ? 1 : kTiles;

  /// @param first_warp of the team @param barrier a named one of its own
  __device__ __forceinline__ Team(const PrefillArgs& args, uint8_t* memory, int first_warp, int barrier)
      : args_(args),
        memory_(memory),
        shared_(shared_address(memory)),
        group_(args.heads / args.kv_heads),
        first_warp_(first_warp),
        member_(own_warp() - first_warp),
        first_row_(first_warp / kMembers * kTiles * 16),
        barrier_(barrier) {}

  __device__ __forceinline__ static int lane() { return threadIdx.x % 32; }
  __device__ __forceinline__ static int quad() { return threadIdx.x % 32 / 4; }
  __device__ __forceinline__ static int in_quad() { return threadIdx.x % 4; }
  __device__ __forceinline__ void sync() const { named_barrier_sync(barrier_, kMembers * 32); }

  /// Row, within all of the block's, of this warp's tile t. Each member begins with a tile of its own.
  __device__ __forceinline__ int tile_row(int t) const { return first_row_ + (kShareSums ? t ^ member_ : t) * 16; }
  /// Row of this thread's elements 2·h and 2·h + 1 of tile t.
  __device__ __forceinline__ int row_of(int t, int h) const { return tile_row(t) + h * 8 + quad(); }
  /// Column of this thread's elements 2·h of column tile n.
  __device__ __forceinline__ int column_of(int n) const { return (member_ * kColumnTiles + n) * 8 + 2 * in_quad(); }

  /// Offset of this lane's row and 16 bytes of a left operand, 16 rows by 16 columns, for load_matrices.
  __device__ __forceinline__ static uint32_t left_lane(int row_bytes) {
    return lane() % 16 * row_bytes + lane() / 16 * 16;
  }

  /// The scores of this warp's keys, which lie in `keys`.
  __device__ __forceinline__ void compute_scores(uint32_t keys) {
    const int matrix = lane() / 8;
    keys += (member_ * kKeys + (matrix >> 1) * 8 + lane() % 8) * S::kRow + (matrix & 1) * 16;
    const uint32_t queries = shared_ + S::kQueries + left_lane(S::kRow);
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
#pragma unroll
      for (int n = 0; n < kKeyTiles; ++n) {
#pragma unroll
        for (int e = 0; e < 4; ++e) scores_[t][n][e] = 0.0f;
      }
    }
#pragma unroll
    for (int k = 0; k < D / 16; ++k) {
      uint32_t q[kTiles][4];
#pragma unroll
      for (int t = 0; t < kTiles; ++t) load_matrices(q[t], queries + tile_row(t) * S::kRow + k * 32);
#pragma unroll
      for (int n = 0; n < kKeyTiles; n += 2) {
        uint32_t b[4];
        load_matrices(b, keys + n * 8 * S::kRow + k * 32);
#pragma unroll
        for (int t = 0; t < kTiles; ++t) {
          mma_m16n8k16(scores_[t][n], q[t], b[0], b[1]);
          mma_m16n8k16(scores_[t][n + 1], q[t], b[2], b[3]);
        }
      }
    }
  }

  /// Whether key 8 · n + e of this thread is masked. @param position of the row, relative to the block's first key
  __device__ __forceinline__ bool masked(int n, int e, int position) const {
    return 8 * n + e > position - member_ * kKeys - 2 * in_quad();
  }

  /// Turns scores into weights for all of the team and moves the running maxima.
  /// @param position (t, h) of a row, relative to the block's first key @param fresh whether a split begins
  template <bool kMasked, class Position>
  __device__ __forceinline__ void weigh(bool fresh, const Position& position) {
    auto* const maxima = reinterpret_cast<float*>(memory_ + S::kMaxima);
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        float a = kMinusInfinity;
#pragma unroll
        for (int n = 0; n < kKeyTiles; ++n) {
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            float& score = scores_[t][n][2 * h + e];
            if (kMasked && masked(n, e, position(t, h))) score = kMinusInfinity;
            a = fmaxf(a, score);
          }
        }
        a = fmaxf(a, __shfl_xor_sync(~0u, a, 1));
        a = fmaxf(a, __shfl_xor_sync(~0u, a, 2));
        if (in_quad() == 0) maxima[(first_warp_ + member_) * 32 + row_of(t, h) - first_row_] = a;
      }
    }
    sync();
    const uint32_t weights = shared_ + S::kWeights + (member_ * kKeys + 2 * in_quad()) * 2;
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        float a = kMinusInfinity;
#pragma unroll
        for (int m = 0; m < kMembers; ++m) a = fmaxf(a, maxima[(first_warp_ + m) * 32 + row_of(t, h) - first_row_]);
        // Rounding is monotone: the largest product is the product of the largest score.
        a = a * args_.scale;
        old_max_[t][h] = max_[t][h];
        max_[t][h] = fresh ? a : next_max(max_[t][h], a);
#pragma unroll
        for (int n = 0; n < kKeyTiles; ++n) {
          float w[2];
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            w[e] = weight(__fmaf_rn(scores_[t][n][2 * h + e], args_.scale, -max_[t][h]));
            if (kMasked && masked(n, e, position(t, h))) w[e] = 0.0f;
          }
          asm volatile("st.shared.b32 [%0], %1;" ::"r"(weights + row_of(t, h) * S::kWeightRow + n * 16),
                       "r"(pack_bf16(w[0], w[1]))
                       : "memory");
        }
      }
    }
  }

  /// Brings the sums to the new maxima, or starts those of a split.
  __device__ __forceinline__ void rescale_sums(bool fresh) {
    bool moved = false;
#pragma unroll
    for (int t = 0; t < kTiles; ++t) moved |= max_[t][0] != old_max_[t][0] || max_[t][1] != old_max_[t][1];
    // Mostly no maximum of the warp has moved; the factors are exactly 1 then.
    if (!fresh && !__any_sync(~0u, moved)) return;
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
      const float factor[2] = {rescale(old_max_[t][0], max_[t][0]), rescale(old_max_[t][1], max_[t][1])};
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        if (t < kSumTiles) sums_[t][e] = fresh ? 0.0f : sums_[t][e] * factor[e / 2];
#pragma unroll
        for (int n = 0; n < kColumnTiles; ++n) out_[t][n][e] = fresh ? 0.0f : out_[t][n][e] * factor[e / 2];
      }
    }
  }

  /// Adds the products of the team's weights with this warp's columns of the values, which lie in `values`.
  __device__ __forceinline__ void add_values(uint32_t values) {
    constexpr uint32_t kOnes = 0x3F803F80;
    const int matrix = lane() / 8;
    const uint32_t weights = shared_ + S::kWeights + left_lane(S::kWeightRow);
    values += lane() % 8 * S::kRow + member_ * kColumnTiles * 16;
    // Four matrices are 16 keys by 16 columns, or 32 keys by 8 columns where a warp has no more.
    constexpr bool kTwoColumns = kColumnTiles % 2 == 0;
    values += kTwoColumns ? (matrix & 1) * 8 * S::kRow + (matrix >> 1) * 16 : matrix * 8 * S::kRow;
    uint32_t b[4];
#pragma unroll
    for (int k = 0; k < kBlockKeys / 16; ++k) {
      uint32_t w[kTiles][4];
#pragma unroll
      for (int t = 0; t < kTiles; ++t) load_matrices(w[t], weights + tile_row(t) * S::kWeightRow + k * 32);
      if constexpr (kTwoColumns) {
#pragma unroll
        for (int n = 0; n < kColumnTiles; n += 2) {
          load_matrices_transposed(b, values + k * 16 * S::kRow + n * 16);
#pragma unroll
          for (int t = 0; t < kTiles; ++t) {
            mma_m16n8k16(out_[t][n], w[t], b[0], b[1]);
            mma_m16n8k16(out_[t][n + 1], w[t], b[2], b[3]);
          }
        }
      } else {
        static_assert(kColumnTiles == 1);
        if (k % 2 == 0) load_matrices_transposed(b, values + k * 16 * S::kRow);
#pragma unroll
        for (int t = 0; t < kTiles; ++t) mma_m16n8k16(out_[t][0], w[t], b[k % 2 * 2], b[k % 2 * 2 + 1]);
      }
#pragma unroll
      for (int t = 0; t < kSumTiles; ++t) mma_m16n8k16(sums_[t], w[t], kOnes, kOnes);
    }
  }

  /// One block: its keys are in the ring's next stage, its values in the one behind.
  template <bool kMasked, class Position>
  __device__ __forceinline__ void add_block(Ring<D>& ring, bool fresh, const Position& position) {
    const uint32_t keys = ring.wait();
    compute_scores(keys);
    ring.release();
    weigh<kMasked>(fresh, position);
    rescale_sums(fresh);
    sync();
    add_values(ring.wait());
    ring.release();
  }

  const PrefillArgs& args_;
  uint8_t* const memory_;
  const uint32_t shared_;
  const int group_;
  const int first_warp_;
  const int member_;
  const int first_row_;
  const int barrier_;
  float scores_[kTiles][kKeyTiles][4];
  float out_[kTiles][kColumnTiles][4], sums_[kSumTiles][4];
  float max_[kTiles][2], old_max_[kTiles][2];
};

}  // namespace detinfer::flashinfer
