// The total of a warp's finished splits: where it is kept, and how it gets to the thread block that computes the rest.
#pragma once

#include "attention/flashinfer/rows.cuh"

namespace detinfer::flashinfer {

template <int D, bool kShared>
class Totals : public Rows<D, kShared> {
  using Base = Rows<D, kShared>;
  using S = Shared<D>;

 public:
  using Base::Base;

 protected:
  using Base::args_, Base::first_row_, Base::kColumnTiles, Base::kTiles, Base::memory_;
  using Base::in_quad, Base::lane;

  /// Row within the tile of this thread's elements h and h + 2 of row tile n.
  __device__ __forceinline__ int row_of(int n, int h) const { return first_row_ + n * 8 + 2 * in_quad() + h; }

  /// Where a piece of the finished splits' sums lies.
  __device__ __forceinline__ float4* total_piece(int m, int n) const {
    const int piece = m * kTiles + n;
    if (piece < S::kSharedPieces) {
      return reinterpret_cast<float4*>(memory_ + S::kTotals) + piece * kThreads + threadIdx.x;
    }
    return global_piece(blockIdx.x, piece - S::kSharedPieces);
  }
  __device__ __forceinline__ float4* global_piece(int block, int piece) const {
    return reinterpret_cast<float4*>(args_.totals) + (block * S::kTotalPieces + piece) * kThreads + threadIdx.x;
  }
  /// Maximum and sum of the finished splits of two rows: the first one's, then the second one's.
  __device__ __forceinline__ float4* total_rules(int n) const {
    return reinterpret_cast<float4*>(memory_ + S::kRules + row_of(n, 0) * 8);
  }

  /// f(where it is kept, where the block hands it on) for each piece of the total and each tile's rules.
  template <class Function>
  __device__ __forceinline__ void for_each_handed(int block, const Function& f) const {
    float4* handed = global_piece(block, S::kGlobalPieces);
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
#pragma unroll
      for (int m = 0; m < kColumnTiles; ++m, handed += kThreads) f(total_piece(m, n), handed);
    }
#pragma unroll
    for (int n = 0; n < kTiles; ++n, handed += kThreads) f(total_rules(n), handed);
  }

  /// Whether the warp of a thread block has handed its total on.
  __device__ __forceinline__ volatile int* flag(int block) const {
    return args_.handed + block * kWarps + threadIdx.x / 32;
  }

  /// Leaves the total to the next thread block, which computes the other splits of the tile.
  __device__ __forceinline__ void hand_on() const {
    for_each_handed(blockIdx.x, [](const float4* kept, float4* handed) { *handed = *kept; });
    __threadfence();
    __syncwarp();
    if (lane() == 0) *flag(blockIdx.x) = 1;
  }

  /// Gets the total from the thread block before, which begins with it.
  __device__ __forceinline__ void take_over() const {
    while (__any_sync(~0u, *flag(blockIdx.x - 1) == 0)) {
    }
    __threadfence();
    for_each_handed(blockIdx.x - 1, [](float4* kept, const float4* handed) { *kept = __ldcg(handed); });
    __syncwarp();
    if (lane() == 0) *flag(blockIdx.x - 1) = 0;
  }
};

}  // namespace detinfer::flashinfer
