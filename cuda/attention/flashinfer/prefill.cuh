// Prefill tiles: four teams of two warps take a quarter of the rows each.
#pragma once

#include "attention/flashinfer/team.cuh"

namespace detinfer::flashinfer {

template <int D>
class Prefill : Team<D, kRowTiles<D>, kTeamWarps> {
  static constexpr int kTiles = kRowTiles<D>, kRows = kTiles * 16;
  using Base = Team<D, kTiles, kTeamWarps>;
  using S = Shared<D>;
  using Base::args_, Base::first_row_, Base::group_, Base::kColumnTiles, Base::kShareSums, Base::kSumTiles;
  using Base::max_, Base::memory_, Base::out_, Base::row_of, Base::sums_;
  static constexpr int kSplitBlocks = kSplitKeys / kBlockKeys;

 public:
  __device__ __forceinline__ Prefill(const PrefillArgs& args, uint8_t* memory)
      : Base(args, memory, own_warp() / kTeamWarps * kTeamWarps, 2 + own_warp() / kTeamWarps) {}

  __device__ __forceinline__ void run(Ring<D>& ring, const PrefillTile& tile, int kv_head) {
    start_ = tile.start;
    const int blocks = (tile.start + tile.positions - 1) / kBlockKeys + 1, rows = tile.positions * group_;
    // Blocks that the team's last row sees, and those that all of its rows see to their ends.
    const int last_position = tile.start + min(first_row_ + kRows - 1, rows - 1) / group_;
    const int own = first_row_ < rows ? last_position / kBlockKeys + 1 : 0;
    const int whole = min((tile.start + first_row_ / group_ + 1) / kBlockKeys, own);
    if (own > 0) load_queries(tile, kv_head, rows);
    has_total_ = false;
    int j = 0;
#pragma unroll 1
    for (; j < whole; ++j) next_block<false>(ring, j, own);
#pragma unroll 1
    for (; j < own; ++j) next_block<true>(ring, j, own);
    if (own > 0) finish(tile, kv_head, (own - 1) / kSplitBlocks * kSplitKeys, rows);
    // Blocks that only other teams see.
    for (int stage = 2 * own; stage < 2 * blocks; ++stage) {
      ring.wait();
      ring.release();
    }
  }

 private:
  __device__ __forceinline__ int position(int t, int h) const { return start_ + row_of(t, h) / group_; }

  /// The team's rows of queries, once none of it reads the last tile's.
  __device__ __forceinline__ void load_queries(const PrefillTile& tile, int kv_head, int rows) const {
    constexpr int kUnits = D / 8, kTeamThreads = kTeamWarps * 32, kCopies = kRows * kUnits / kTeamThreads;
    uint4 v[kCopies];
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      const int item = i * kTeamThreads + threadIdx.x % kTeamThreads, row = first_row_ + item / kUnits;
      const int64_t head = head_of(tile, kv_head, min(row, rows - 1));
      const bool used = item % kUnits * 8 < args_.head_dim;
      if (used) v[i] = *reinterpret_cast<const uint4*>(args_.q + head * args_.head_dim + item % kUnits * 8);
      if (!used) v[i] = make_uint4(0, 0, 0, 0);
    }
    Base::sync();
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      const int item = i * kTeamThreads + threadIdx.x % kTeamThreads, row = first_row_ + item / kUnits;
      *reinterpret_cast<uint4*>(memory_ + S::kQueries + row * S::kRow + item % kUnits * 16) = v[i];
    }
    Base::sync();
  }

  /// Row, in units of head_dim, of q and out that a tile's row has.
  __device__ __forceinline__ int64_t head_of(const PrefillTile& tile, int kv_head, int row) const {
    return int64_t(tile.row + row / group_) * args_.heads + kv_head * group_ + row % group_;
  }

  template <bool kMasked>
  __device__ __forceinline__ void next_block(Ring<D>& ring, int j, int own) {
    Base::template add_block<kMasked>(ring, j % kSplitBlocks == 0,
                                      [&](int t, int h) { return position(t, h) - j * kBlockKeys; });
    if (j % kSplitBlocks == kSplitBlocks - 1 && j < own - 1) set_aside();
  }

  __device__ __forceinline__ float4* total_piece(int t, int n) const {
    const int piece = (blockIdx.x * kTiles + t) * kColumnTiles + n;
    return reinterpret_cast<float4*>(args_.totals) + piece * kThreads + threadIdx.x;
  }

  /// Merges the split that has ended into the total.
  __device__ __forceinline__ void set_aside() {
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
      float total_weight[2], split_weight[2];
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const float before = has_total_ ? total_max_[t][h] : kMinusInfinity, merged = fmaxf(before, max_[t][h]);
        total_weight[h] = rescale(before, merged);
        split_weight[h] = rescale(max_[t][h], merged);
        total_max_[t][h] = merged;
        if (t < kSumTiles) {
          const float sum = has_total_ ? total_sum_[t][h] : 0.0f;
          total_sum_[t][h] = __fmaf_rn(sums_[t][2 * h], split_weight[h], sum * total_weight[h]);
        }
      }
#pragma unroll
      for (int n = 0; n < kColumnTiles; ++n) {
        float4 v = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        if (has_total_) v = *total_piece(t, n);
        const float(&o)[4] = out_[t][n];
        *total_piece(t, n) = make_float4(__fmaf_rn(o[0], split_weight[0], v.x * total_weight[0]),
                                         __fmaf_rn(o[1], split_weight[0], v.y * total_weight[0]),
                                         __fmaf_rn(o[2], split_weight[1], v.z * total_weight[1]),
                                         __fmaf_rn(o[3], split_weight[1], v.w * total_weight[1]));
      }
    }
    has_total_ = true;
  }

  /// Merges the total and the last split into out_ and sums_. Rows before the split's first key keep the total.
  __device__ __forceinline__ void merge_last(int first_key) {
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
      float total_weight[2], split_weight[2];
      bool sees[2];
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        sees[h] = position(t, h) >= first_key;
        const float merged = fmaxf(total_max_[t][h], max_[t][h]);
        total_weight[h] = rescale(total_max_[t][h], merged);
        split_weight[h] = rescale(max_[t][h], merged);
        if (t < kSumTiles) {
          const float sum = __fmaf_rn(sums_[t][2 * h], split_weight[h], total_sum_[t][h] * total_weight[h]);
          sums_[t][2 * h] = sees[h] ? sum : total_sum_[t][h];
        }
      }
#pragma unroll
      for (int n = 0; n < kColumnTiles; ++n) {
        const float4 piece = *total_piece(t, n);
        const float v[4] = {piece.x, piece.y, piece.z, piece.w};
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int h = e / 2;
          const float merged = __fmaf_rn(out_[t][n][e], split_weight[h], v[e] * total_weight[h]);
          out_[t][n][e] = sees[h] ? merged : v[e];
        }
      }
    }
  }

  /// The last merge, the division and the stores. @param first_key of the last split
  __device__ __forceinline__ void finish(const PrefillTile& tile, int kv_head, int first_key, int rows) {
    if (has_total_) merge_last(first_key);
    auto* const sums = reinterpret_cast<float*>(memory_ + S::kSums);
    if constexpr (kShareSums) {
      // Between this and the next tile's stores lie meetings of the team.
      if (Base::in_quad() == 0) {
#pragma unroll
        for (int h = 0; h < 2; ++h) sums[row_of(0, h)] = sums_[0][2 * h];
      }
      Base::sync();
    }
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int row = row_of(t, h);
        float sum;
        if constexpr (kShareSums) {
          sum = sums[row];
        } else {
          sum = sums_[t][2 * h];
        }
        const float inverse = __fdiv_rn(1.0f, sum);
        if (row < rows) store_row(t, h, head_of(tile, kv_head, row) * args_.head_dim, inverse);
      }
    }
  }

  /// @param at element of out where the row begins
  __device__ __forceinline__ void store_row(int t, int h, int64_t at, float inverse) const {
#pragma unroll
    for (int n = 0; n < kColumnTiles; ++n) {
      const int column = Base::column_of(n);
      if (column >= args_.head_dim) continue;
      const float a = out_[t][n][2 * h] * inverse, b = out_[t][n][2 * h + 1] * inverse;
      store_pair(args_, at + column, a, b);
    }
  }

  int start_ = 0;
  bool has_total_ = false;
  float total_max_[kTiles][2], total_sum_[kSumTiles][2];
};

}  // namespace detinfer::flashinfer
