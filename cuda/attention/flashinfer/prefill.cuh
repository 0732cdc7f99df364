// A tile, by a warp that takes some of its rows against all keys that they see.
#pragma once

#include "attention/flashinfer/rows.cuh"

namespace detinfer::flashinfer {

template <int D>
class Prefill : Rows<D> {
  using Base = Rows<D>;
  using S = Shared<D>;
  using Base::args_, Base::first_row_, Base::kColumnTiles, Base::kKeyTiles, Base::kTiles, Base::max_, Base::memory_;
  using Base::in_quad, Base::lane, Base::out_, Base::quad, Base::query, Base::ring_, Base::scores_, Base::sums_;
  static constexpr int kSplitBlocks = kSplitKeys / kBlockKeys;

 public:
  using Base::Base;

  /// Computes all tiles of the thread block.
  __device__ __forceinline__ void run() {
#pragma unroll 1
    for (int n = 0;; ++n) {
      const DealtTile dealt = deal(args_, n);
      if (dealt.blocks == 0) return;
      run_tile(dealt);
    }
  }

 private:
  /// Row within the tile of this thread's elements h and h + 2 of row tile n.
  __device__ __forceinline__ int row_of(int n, int h) const { return first_row_ + n * 8 + 2 * in_quad() + h; }
  /// Position of a row, counted from the tile's first one. The quotient is exact for any group up to 16.
  __device__ __forceinline__ int offset(int row) const { return row * args_.group_inverse >> 16; }
  __device__ __forceinline__ int position(int n, int h) const { return start_ + offset(row_of(n, h)); }

  __device__ __forceinline__ int rows_of(const DealtTile& dealt) const { return dealt.tile.positions * args_.group; }

  __device__ __forceinline__ void run_tile(const DealtTile& dealt) {
    start_ = dealt.tile.start;
    const int rows = rows_of(dealt);
    // Blocks that the warp's last row sees, and those that all of its rows see to their ends.
    const int last_position = start_ + offset(min(first_row_ + kWarpRows<D> - 1, rows - 1));
    const int own = first_row_ < rows ? last_position / kBlockKeys + 1 : 0;
    const int whole = min((start_ + offset(first_row_) + 1) / kBlockKeys, own);
    if (own > 0) load_queries(dealt);
#pragma unroll 1
    for (int j = 0; j < own; ++j) {
      const bool fresh = j % kSplitBlocks == 0;
      Base::compute_scores();
      if (j >= whole) mask(j * kBlockKeys);
      move_maxima(fresh, j * kBlockKeys);
      Base::add_values();
      if (j % kSplitBlocks == kSplitBlocks - 1 && j < own - 1) set_aside(j >= kSplitBlocks);
    }
    if (own > 0) finish(dealt, own);
    // Blocks that only other warps see.
#pragma unroll 1
    for (int n = 2 * own; n < 2 * dealt.blocks; ++n) {
      ring_.feed();
      ring_.release();
    }
  }

  /// Row, in units of head_dim, of q and out that a tile's row has.
  __device__ __forceinline__ int64_t head_of(const DealtTile& dealt, int row) const {
    const int position = offset(row);
    const int head = dealt.kv_head * args_.group + row - position * args_.group;
    return int64_t(dealt.tile.row + position) * args_.heads + head;
  }
  /// f(row, unit of 16 bytes) for all of the warp's rows, the lanes side by side.
  template <class Function>
  __device__ __forceinline__ void for_each_unit(const Function& f) const {
    constexpr int kUnits = D / 8;
#pragma unroll 4
    for (int item = lane(); item < kWarpRows<D> * kUnits; item += 32) {
      if (item % kUnits * 8 < args_.head_dim) f(first_row_ + item / kUnits, item % kUnits);
    }
  }

  /// The warp's rows, once it has stored those of the last tile from the same place.
  __device__ __forceinline__ void load_queries(const DealtTile& dealt) const {
    const int rows = rows_of(dealt);
    __syncwarp();
    for_each_unit([&](int row, int unit) {
      const int64_t head = head_of(dealt, min(row, rows - 1));
      copy_16(Base::shared_ + query(row, unit), args_.q + head * args_.head_dim + unit * 8);
    });
    wait_for_copies();
    __syncwarp();
  }

  /// Hides the scores of keys behind each row's position.
  __device__ __forceinline__ void mask(int first_key) {
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int limit = position(n, h) - first_key - quad();
#pragma unroll
        for (int m = 0; m < kKeyTiles; ++m) {
          if (16 * m > limit) scores_[m][n][h] = kMinusInfinity;
          if (16 * m + 8 > limit) scores_[m][n][h + 2] = kMinusInfinity;
        }
      }
    }
  }

  /// The largest scores of this thread. Positive floats are ordered like their bits, and for those there is a maximum
  /// of three; where a thread has no positive score in a row, the warp does it anew as floats.
  __device__ __forceinline__ void find_largest(float (&largest)[kTiles][2]) const {
    int signs = 0;
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        int a = max(__float_as_int(scores_[0][n][h]), __float_as_int(scores_[0][n][h + 2]));
#pragma unroll
        for (int m = 1; m < kKeyTiles; ++m) {
          a = __vimax3_s32(a, __float_as_int(scores_[m][n][h]), __float_as_int(scores_[m][n][h + 2]));
        }
        signs |= a;
        largest[n][h] = __int_as_float(a);
      }
    }
    if (!__any_sync(~0u, signs < 0)) return;
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        float a = kMinusInfinity;
#pragma unroll
        for (int m = 0; m < kKeyTiles; ++m) a = fmaxf(a, fmaxf(scores_[m][n][h], scores_[m][n][h + 2]));
        largest[n][h] = a;
      }
    }
  }

  /// The largest scores of the rows, of which each thread knows those among its own.
  __device__ __forceinline__ static void share_largest(float (&largest)[kTiles][2]) {
#pragma unroll
    for (int mask = 4; mask < 32; mask *= 2) {
#pragma unroll
      for (int n = 0; n < kTiles; ++n) {
#pragma unroll
        for (int h = 0; h < 2; ++h) largest[n][h] = fmaxf(largest[n][h], __shfl_xor_sync(~0u, largest[n][h], mask));
      }
    }
  }

  /// Moves the running maxima and brings the sums to them, or starts those of a split.
  __device__ __forceinline__ void move_maxima(bool fresh, int first_key) {
    float largest[kTiles][2];
    find_largest(largest);
    if (fresh) {
      start_split(largest, first_key);
      return;
    }
    // A row's maximum moves if a score among any thread's is large enough. Mostly none of the warp's is.
    bool moves = false;
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        // Rounding is monotone: the largest product is the product of the largest score.
        moves |= next_max(max_[n][h], largest[n][h] * args_.scale) != max_[n][h];
      }
    }
    if (!__any_sync(~0u, moves)) return;
    share_largest(largest);
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const float old_max = max_[n][h];
        max_[n][h] = next_max(old_max, largest[n][h] * args_.scale);
        const float factor = rescale(old_max, max_[n][h]);
        sums_[n][h] = sums_[n][h] * factor;
#pragma unroll
        for (int m = 0; m < kColumnTiles; ++m) {
          out_[m][n][h] = out_[m][n][h] * factor;
          out_[m][n][h + 2] = out_[m][n][h + 2] * factor;
        }
      }
    }
  }

  __device__ __forceinline__ void start_split(float (&largest)[kTiles][2], int first_key) {
    share_largest(largest);
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        // A row that sees nothing of the split gets a maximum against which its weights are 0; its sums are not used.
        max_[n][h] = position(n, h) < first_key ? 0.0f : largest[n][h] * args_.scale;
        sums_[n][h] = 0.0f;
      }
#pragma unroll
      for (int m = 0; m < kColumnTiles; ++m) {
#pragma unroll
        for (int e = 0; e < 4; ++e) out_[m][n][e] = 0.0f;
      }
    }
  }

  /// Where a piece of the finished splits' sums lies.
  __device__ __forceinline__ float4* total_piece(int m, int n) const {
    const int piece = m * kTiles + n;
    if (piece < S::kSharedPieces) {
      return reinterpret_cast<float4*>(memory_ + S::kTotals) + piece * kThreads + threadIdx.x;
    }
    constexpr int kGlobalPieces = S::kPieces - S::kSharedPieces;
    auto* const own = reinterpret_cast<float4*>(args_.totals) + blockIdx.x * (kGlobalPieces * kThreads) + threadIdx.x;
    return own + (piece - S::kSharedPieces) * kThreads;
  }
  /// Maximum and sum of the finished splits of two rows: the first one's, then the second one's.
  __device__ __forceinline__ float4* total_rules(int n) const {
    return reinterpret_cast<float4*>(memory_ + S::kRules + row_of(n, 0) * 8);
  }

  /// Merges the split that has ended into the total.
  __device__ __forceinline__ void set_aside(bool has_total) {
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
      float4 rules = make_float4(kMinusInfinity, 0.0f, kMinusInfinity, 0.0f);
      if (has_total) rules = *total_rules(n);
      const float merged[2] = {fmaxf(rules.x, max_[n][0]), fmaxf(rules.z, max_[n][1])};
      const float total_weight[2] = {rescale(rules.x, merged[0]), rescale(rules.z, merged[1])};
      const float split_weight[2] = {rescale(max_[n][0], merged[0]), rescale(max_[n][1], merged[1])};
      rules = make_float4(merged[0], __fmaf_rn(sums_[n][0], split_weight[0], rules.y * total_weight[0]), merged[1],
                          __fmaf_rn(sums_[n][1], split_weight[1], rules.w * total_weight[1]));
      __syncwarp();
      if (quad() == 0) *total_rules(n) = rules;
#pragma unroll
      for (int m = 0; m < kColumnTiles; ++m) {
        float4 v = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        if (has_total) v = *total_piece(m, n);
        const float(&o)[4] = out_[m][n];
        *total_piece(m, n) = make_float4(__fmaf_rn(o[0], split_weight[0], v.x * total_weight[0]),
                                         __fmaf_rn(o[1], split_weight[1], v.y * total_weight[1]),
                                         __fmaf_rn(o[2], split_weight[0], v.z * total_weight[0]),
                                         __fmaf_rn(o[3], split_weight[1], v.w * total_weight[1]));
      }
    }
    __syncwarp();
  }

  /// Merges the total and the last split into out_ and sums_. Rows before the split's first key keep the total.
  __device__ __forceinline__ void merge_last(int first_key) {
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
      const float4 rules = *total_rules(n);
      const float total_max[2] = {rules.x, rules.z}, total_sum[2] = {rules.y, rules.w};
      float total_weight[2], split_weight[2];
      bool sees[2];
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        sees[h] = position(n, h) >= first_key;
        const float merged = fmaxf(total_max[h], max_[n][h]);
        total_weight[h] = rescale(total_max[h], merged);
        split_weight[h] = rescale(max_[n][h], merged);
        const float sum = __fmaf_rn(sums_[n][h], split_weight[h], total_sum[h] * total_weight[h]);
        sums_[n][h] = sees[h] ? sum : total_sum[h];
      }
#pragma unroll
      for (int m = 0; m < kColumnTiles; ++m) {
        const float4 piece = *total_piece(m, n);
        const float v[4] = {piece.x, piece.y, piece.z, piece.w};
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int h = e % 2;
          const float merged = __fmaf_rn(out_[m][n][e], split_weight[h], v[e] * total_weight[h]);
          out_[m][n][e] = sees[h] ? merged : v[e];
        }
      }
    }
  }

  /// The last merge, the division and the stores. @param own blocks of the warp
  __device__ __forceinline__ void finish(const DealtTile& dealt, int own) {
    const int rows = rows_of(dealt);
    if (own > kSplitBlocks) merge_last((own - 1) / kSplitBlocks * kSplitKeys);
    float inverse[kTiles][2];
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
#pragma unroll
      for (int h = 0; h < 2; ++h) inverse[n][h] = __fdiv_rn(1.0f, sums_[n][h]);
    }
    if (args_.out_f32 != nullptr) {
      store_f32(dealt, rows, inverse);
      return;
    }
    // Through the place of the warp's queries, so that whole rows are stored.
    __syncwarp();
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
#pragma unroll
      for (int m = 0; m < kColumnTiles; ++m) {
#pragma unroll
        for (int e = 0; e < 4; e += 2) {
          if (16 * m >= args_.head_dim) continue;
          const float(&o)[4] = out_[m][n];
          const uint32_t pair = transpose(pack_bf16(o[e] * inverse[n][0], o[e + 1] * inverse[n][1]));
          const uint32_t at = query(first_row_ + n * 8 + quad(), 2 * m + e / 2) + in_quad() * 4;
          *reinterpret_cast<uint32_t*>(memory_ + at) = pair;
        }
      }
    }
    __syncwarp();
    for_each_unit([&](int row, int unit) {
      if (row >= rows) return;
      *reinterpret_cast<uint4*>(args_.out + head_of(dealt, row) * args_.head_dim + unit * 8) =
          *reinterpret_cast<const uint4*>(memory_ + query(row, unit));
    });
  }

  __device__ __forceinline__ void store_f32(const DealtTile& dealt, int rows, const float (&inverse)[kTiles][2]) const {
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int row = row_of(n, h);
        if (row >= rows) continue;
        float* const to = args_.out_f32 + head_of(dealt, row) * args_.head_dim + quad();
#pragma unroll
        for (int m = 0; m < kColumnTiles; ++m) {
          if (16 * m >= args_.head_dim) continue;
          to[16 * m] = out_[m][n][h] * inverse[n][h];
          to[16 * m + 8] = out_[m][n][h + 2] * inverse[n][h];
        }
      }
    }
  }

  /// Position of the tile's first row.
  int start_;
};

}  // namespace detinfer::flashinfer
