// A piece of a tile, by a warp that takes some of the rows against all of the piece's keys that they see.
#pragma once

#include "attention/flashinfer/totals.cuh"

namespace detinfer::flashinfer {

template <int D, bool kShared>
class Prefill : Totals<D, kShared> {
  using Base = Totals<D, kShared>;
  using S = Shared<D>;
  using Base::args_, Base::first_row_, Base::kColumnTiles, Base::kKeyTiles, Base::kTiles, Base::max_, Base::memory_;
  using Base::in_quad, Base::lane, Base::out_, Base::quad, Base::query, Base::ring_, Base::scores_, Base::sums_;
  using Base::hand_on, Base::row_of, Base::take_over, Base::total_piece, Base::total_rules;
  static constexpr int kSplitBlocks = kSplitKeys / kBlockKeys;

 public:
  using Base::Base;

  /// Computes the thread block's share.
  __device__ __forceinline__ void run() {
#pragma unroll 1
    for (int n = 0;; ++n) {
      const PrefillPiece piece = deal<kShared>(args_, n);
      if (piece.end == 0) return;
      run_piece(piece, n);
    }
  }

 private:
  /// Position of a row, counted from the tile's first one. The quotient is exact for any group up to 16.
  __device__ __forceinline__ int offset(int row) const { return row * args_.group_inverse >> 16; }
  __device__ __forceinline__ int position(int n, int h) const { return start_ + offset(row_of(n, h)); }

  __device__ __forceinline__ int rows_of(const PrefillPiece& piece) const { return piece.tile.positions * args_.group; }

  /// @param n its number in the share
  __device__ __forceinline__ void run_piece(const PrefillPiece& piece, int n) {
    start_ = piece.tile.start;
    const int rows = rows_of(piece);
    // Blocks that the warp's last row sees, and those that all of its rows see to their ends.
    const int last_position = start_ + offset(min(first_row_ + kWarpRows<D> - 1, rows - 1));
    const int blocks = first_row_ < rows ? last_position / kBlockKeys + 1 : 0;
    const int whole = min((start_ + offset(first_row_) + 1) / kBlockKeys, blocks);
    const int own_end = kShared ? max(min(blocks, piece.end), piece.first) : blocks;
    if (own_end > piece.first) {
      load_queries(piece);
      if (piece.first > 0) take_over();
    }
#pragma unroll 1
    for (int j = piece.first; j < own_end; ++j) {
      const bool fresh = j % kSplitBlocks == 0;
      Base::compute_scores();
      if (j >= whole) mask(j * kBlockKeys);
      move_maxima(fresh, j * kBlockKeys);
      Base::add_values();
      if (j % kSplitBlocks == kSplitBlocks - 1 && j < blocks - 1) set_aside(j >= kSplitBlocks);
    }
    if (own_end > piece.first) {
      if (own_end < blocks) {
        hand_on();
      } else if constexpr (kShared) {
        // Read again: no register is left to keep it.
        finish(deal<kShared>(args_, n), blocks);
      } else {
        finish(piece, blocks);
      }
    }
    // Blocks that only other warps see.
#pragma unroll 1
    for (int n = 2 * own_end; n < 2 * piece.end; ++n) {
      ring_.feed();
      ring_.release();
    }
  }

  /// Row, in units of head_dim, of q and out that a tile's row has.
  __device__ __forceinline__ int64_t head_of(const PrefillPiece& piece, int row) const {
    const int position = offset(row);
    const int head = piece.kv_head * args_.group + row - position * args_.group;
    return int64_t(piece.tile.row + position) * args_.heads + head;
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
  __device__ __forceinline__ void load_queries(const PrefillPiece& piece) const {
    const int rows = rows_of(piece);
    __syncwarp();
    for_each_unit([&](int row, int unit) {
      const int64_t head = head_of(piece, min(row, rows - 1));
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

  /// The split's sum of weights in the row of this thread's elements h and h + 2 of row tile n.
  __device__ __forceinline__ float sum(int n, int h) const {
    return __shfl_sync(~0u, sums_[n], (2 * in_quad() + h) * 4);
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
      float factor[2];
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const float old_max = max_[n][h];
        max_[n][h] = next_max(old_max, largest[n][h] * args_.scale);
        factor[h] = rescale(old_max, max_[n][h]);
#pragma unroll
        for (int m = 0; m < kColumnTiles; ++m) {
          out_[m][n][h] = out_[m][n][h] * factor[h];
          out_[m][n][h + 2] = out_[m][n][h + 2] * factor[h];
        }
      }
      // The sum's row is another one.
      const float even = __shfl_sync(~0u, factor[0], quad() / 2), odd = __shfl_sync(~0u, factor[1], quad() / 2);
      sums_[n] = sums_[n] * (quad() % 2 == 0 ? even : odd);
    }
  }

  __device__ __forceinline__ void start_split(float (&largest)[kTiles][2], int first_key) {
    share_largest(largest);
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
      sums_[n] = 0.0f;
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        // A row that sees nothing of the split gets a maximum against which its weights are 0; its sums are not used.
        max_[n][h] = position(n, h) < first_key ? 0.0f : largest[n][h] * args_.scale;
      }
#pragma unroll
      for (int m = 0; m < kColumnTiles; ++m) {
#pragma unroll
        for (int e = 0; e < 4; ++e) out_[m][n][e] = 0.0f;
      }
    }
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
      rules = make_float4(merged[0], __fmaf_rn(sum(n, 0), split_weight[0], rules.y * total_weight[0]), merged[1],
                          __fmaf_rn(sum(n, 1), split_weight[1], rules.w * total_weight[1]));
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
  __device__ __forceinline__ void merge_last(int first_key, float (&sums)[kTiles][2]) {
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
        const float merged_sum = __fmaf_rn(sums[n][h], split_weight[h], total_sum[h] * total_weight[h]);
        sums[n][h] = sees[h] ? merged_sum : total_sum[h];
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

  /// The last merge, the division and the stores. @param blocks that the warp's last row sees
  __device__ __forceinline__ void finish(const PrefillPiece& piece, int blocks) {
    const int rows = rows_of(piece);
    float inverse[kTiles][2];
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
#pragma unroll
      for (int h = 0; h < 2; ++h) inverse[n][h] = sum(n, h);
    }
    if (blocks > kSplitBlocks) merge_last((blocks - 1) / kSplitBlocks * kSplitKeys, inverse);
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
#pragma unroll
      for (int h = 0; h < 2; ++h) inverse[n][h] = __fdiv_rn(1.0f, inverse[n][h]);
    }
    if (args_.out_f32 != nullptr) {
      store_f32(piece, rows, inverse);
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
      *reinterpret_cast<uint4*>(args_.out + head_of(piece, row) * args_.head_dim + unit * 8) =
          *reinterpret_cast<const uint4*>(memory_ + query(row, unit));
    });
  }

  __device__ __forceinline__ void store_f32(const PrefillPiece& piece, int rows,
                                            const float (&inverse)[kTiles][2]) const {
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int row = row_of(n, h);
        if (row >= rows) continue;
        float* const to = args_.out_f32 + head_of(piece, row) * args_.head_dim + quad();
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
