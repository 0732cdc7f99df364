// Decode splits: all warps compute the query heads of one KV head against 512 keys. The block that finishes a
// sequence's last split merges them all, in order.
#pragma once

#include "attention/flashinfer/team.cuh"

namespace detinfer::flashinfer {

template <int D>
class Decode : Team<D, 1, kWarps> {
  using Base = Team<D, 1, kWarps>;
  using S = Shared<D>;
  using Base::args_, Base::group_, Base::kColumnTiles, Base::max_, Base::memory_, Base::out_, Base::row_of, Base::sums_;

 public:
  __device__ __forceinline__ Decode(const FlashinferArgs& args, uint8_t* memory) : Base(args, memory, 0, 1) {}

  __device__ __forceinline__ void run(Ring<D>& ring, const DecodeSplit& split, int kv_head) {
    const int blocks = (split.keys + kBlockKeys - 1) / kBlockKeys;
#pragma unroll 1
    for (int j = 0; j < blocks; ++j) {
      const int last_key = split.keys - 1 - j * kBlockKeys;
      Base::template add_block<true>(ring, j == 0, [=](int, int) { return last_key; });
    }
    if (split.splits == 1) {
      store_rows(split, kv_head);
    } else if (group_ <= 8) {
      store_partial<1>(split, kv_head);
    } else {
      store_partial<2>(split, kv_head);
    }
  }

 private:
  /// The only split of a sequence.
  __device__ __forceinline__ void store_rows(const DecodeSplit& split, int kv_head) const {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int row = row_of(0, h);
      if (row >= group_) continue;
      const float inverse = __fdiv_rn(1.0f, sums_[0][2 * h]);
      const int64_t head = int64_t(split.row) * args_.step.heads + kv_head * group_ + row;
#pragma unroll
      for (int n = 0; n < kColumnTiles; ++n) {
        const int column = Base::column_of(n);
        if (column >= args_.head_dim) continue;
        const float a = out_[0][n][2 * h] * inverse, b = out_[0][n][2 * h + 1] * inverse;
        store_pair(args_.step, head * args_.head_dim + column, a, b);
      }
    }
  }

  /// One of several splits, into the workspace; then the merge, if it was the last.
  template <int kOctets>
  __device__ __forceinline__ void store_partial(const DecodeSplit& split, int kv_head) const {
    const SplitMerge<D, kThreads, kOctets> merge(args_.step, args_.head_dim, memory_ + S::kWeights, memory_ + S::kFlag);
    const int64_t first = merge.partial_row(split.partial + split.split, kv_head);
#pragma unroll
    for (int h = 0; h < kOctets; ++h) {
      const int row = row_of(0, h);
      if (row >= group_) continue;
#pragma unroll
      for (int n = 0; n < kColumnTiles; ++n) {
        const int column = Base::column_of(n);
        if (column >= args_.head_dim) continue;
        *reinterpret_cast<float2*>(args_.step.partial_sums + (first + row) * args_.head_dim + column) =
            make_float2(out_[0][n][2 * h], out_[0][n][2 * h + 1]);
      }
      if (Base::member_ == 0 && Base::in_quad() == 0) {
        args_.step.partial_rules[first + row] = make_float2(max_[0][h], sums_[0][2 * h]);
      }
    }
    if (merge.is_last(split, kv_head)) merge.merge(split, kv_head);
  }
};

}  // namespace detinfer::flashinfer
