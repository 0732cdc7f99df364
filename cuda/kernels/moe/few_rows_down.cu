// Down and the combination of an expert layer for few rows. A tile is 16 columns of one row: the stages bring those
// columns of 8 of its experts, one below the other, beside the 8 activations, so that a warp has one expert's product.
#include "core/tensor_map.cuh"
#include "kernels/moe/choose_row.cuh"
#include "kernels/moe/few_rows.cuh"

namespace detinfer {
namespace few_rows {
namespace {

/// Experts that are multiplied at once, and columns of a tile.
constexpr int kExpertsAtOnce = kMultiplyingWarps, kColumns = 16;
constexpr int kBlockBytes = kColumns * 128;
/// The boxes of weights are small: one warp alone would not ask for them fast enough.
constexpr int kLoadingWarps = 4, kExpertsOfWarp = kExpertsAtOnce / kLoadingWarps;
constexpr int kThreads = (kMultiplyingWarps + kLoadingWarps) * 32;

struct Down {
  const float* logits;
  int rows;
  RouteSpec spec;
  /// [rows][n]
  bf16* out;
  /// Columns, and tiles of a row.
  int n, tiles;
  /// Stages of a chain.
  int steps;
  StageShape stages;
};

/// A loading warp: asks for the weights of its experts, and the first one for the activations, stage after stage.
template <int kShare>
class Producer {
 public:
  __device__ __forceinline__ Producer(const Down& a, const CUtensorMap& x, const CUtensorMap& w, const Stages& stages,
                                      int warp, int lane)
      : a_(a), x_(x), w_(w), stages_(stages), warp_(warp), lane_(lane), policy_(cache_policy(CacheHint::kStream)) {}

  __device__ __forceinline__ void run(int tiles) {
    const int groups = ceil_div(a_.spec.top_k, kExpertsAtOnce), begun = min(stages_.count, a_.steps);
    // Weights are written by no kernel, and logits were there when this one started: the first stages are on their way
    // while the product before is still running.
    choose(blockIdx.x);
    find_experts(0);
    for (int step = 0; step < begun; ++step) weights(step, step);
    wait_for_inputs();
    Ring ring;
    int turn = 0;
    for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
      if (turn > 0) choose(tile);
      for (int group = 0; group < groups; ++group) {
        find_experts(group);
        for (int step = 0; step < a_.steps; ++step, ++turn, ring.advance(stages_.count)) {
          if (turn >= begun) {
            if (turn >= stages_.count) barrier_wait(stages_.empty(ring.stage), ring.parity ^ 1);
            weights(step, ring.stage);
          }
          if (warp_ == 0 && elect_one()) {
            tma_load_2d(stages_.x(ring.stage), &x_, step * 64, row_ * a_.spec.top_k + group * kExpertsAtOnce,
                        stages_.full(ring.stage));
          }
          __syncwarp();
        }
      }
    }
  }

 private:
  __device__ __forceinline__ void choose(int tile) {
    row_ = tile / a_.tiles;
    column_ = tile % a_.tiles * kColumns;
    expert_ = choose_row<kShare>(a_.logits + int64_t(row_) * a_.spec.experts, a_.spec, lane_).id;
  }
  /// Where this warp's weights of a group begin.
  __device__ __forceinline__ void find_experts(int group) {
    const int first = group * kExpertsAtOnce + warp_ * kExpertsOfWarp;
    count_ = min(max(a_.spec.top_k - first, 0), kExpertsOfWarp);
#pragma unroll
    for (int i = 0; i < kExpertsOfWarp; ++i) w_rows_[i] = __shfl_sync(~0u, expert_, first + i) * a_.n + column_;
  }
  __device__ __forceinline__ void weights(int step, int stage) const {
    if (elect_one()) {
      const uint32_t full = stages_.full(stage), to = stages_.w(stage) + warp_ * kExpertsOfWarp * kBlockBytes;
      barrier_expect(full, count_ * kBlockBytes + (warp_ == 0 ? StageShape::kXBytes : 0));
#pragma unroll
      for (int i = 0; i < kExpertsOfWarp; ++i) {
        if (i < count_) tma_load_2d(to + i * kBlockBytes, &w_, step * 64, w_rows_[i], full, policy_);
      }
    }
    __syncwarp();
  }

  const Down& a_;
  const CUtensorMap &x_, &w_;
  const Stages& stages_;
  int warp_, lane_;
  uint64_t policy_;
  int row_ = 0, column_ = 0, expert_ = 0, count_ = 0;
  int w_rows_[kExpertsOfWarp] = {};
};

template <int kShare>
__device__ __forceinline__ void consume(const Down& a, const Stages& stages, int tiles, int warp, int lane) {
  // Two buffers: while the first warp combines what is in one, the others may fill the other.
  __shared__ float products[2][kExpertsAtOnce][kColumns];
  Ring ring;
  int turn = 0;
  const auto weights_of = [&](int tile) {
    return choose_row<kShare>(a.logits + int64_t(tile / a.tiles) * a.spec.experts, a.spec, lane).weight;
  };
  float weight = warp == 0 ? weights_of(blockIdx.x) : 0.0f;
  wait_for_inputs();  // before `out`, which an earlier kernel may still read, is overwritten
  for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    float sum = 0.0f;
    for (int first = 0; first < a.spec.top_k; first += kExpertsAtOnce, turn ^= 1) {
      float acc[4];
      multiply(acc, stages, ring, a.steps, warp / 4, lane);
      // This warp's 16 rows of W are expert `warp`'s, and so is that column.
      if (lane % 4 == warp / 2) {
        products[turn][warp][lane / 4] = to_float(to_bf16(warp % 2 ? acc[1] : acc[0]));
        products[turn][warp][lane / 4 + 8] = to_float(to_bf16(warp % 2 ? acc[3] : acc[2]));
      }
      named_barrier_sync(1, kMultiplyingWarps * 32);
      if (warp != 0) continue;
      const int count = min(kExpertsAtOnce, a.spec.top_k - first);
      for (int i = 0; i < count; ++i) {
        sum = __fmaf_rn(__shfl_sync(~0u, weight, first + i), products[turn][i][lane % kColumns], sum);
      }
    }
    if (warp != 0) continue;
    const int column = tile % a.tiles * kColumns + lane;
    if (lane < kColumns && column < a.n) a.out[int64_t(tile / a.tiles) * a.n + column] = to_bf16(sum);
    if (tile + gridDim.x < tiles) weight = weights_of(tile + gridDim.x);
  }
}

template <int kShare>
__global__ void __launch_bounds__(kThreads)
    down_kernel(const __grid_constant__ CUtensorMap x, const __grid_constant__ CUtensorMap w, const Down a) {
  extern __shared__ uint8_t shared[];
  let_next_start();
  const Place at(a.stages, shared, x, w, kLoadingWarps);
  const int tiles = a.rows * a.tiles;
  if (at.warp >= kMultiplyingWarps) {
    Producer<kShare>(a, x, w, at.stages, at.warp - kMultiplyingWarps, at.lane).run(tiles);
  } else {
    consume<kShare>(a, at.stages, tiles, at.warp, at.lane);
  }
}

}  // namespace
}  // namespace few_rows

void few_rows_down_cuda(const bf16* x, const float* logits, int rows, const RouteSpec& spec, const DeviceMatrix& w,
                        bf16* out, cudaStream_t stream) {
  using namespace few_rows;
  check_route_spec(spec);
  if (rows == 0) return;
  const int n = w.n / spec.experts, tiles = ceil_div(n, kColumns);
  const Down a{logits, rows, spec, out, n, tiles, ceil_div(w.k, 64), StageShape(kExpertsAtOnce * kColumns)};
  const CUtensorMap x_map = tensor_map_2d(x, w.k, int64_t(rows) * spec.top_k, w.k, 64, kExpertsAtOnce);
  const CUtensorMap w_map = tensor_map_2d(w.data, w.k, w.n, w.k, 64, kColumns);
  if (spec.experts <= 4 * 32) {
    launch_tiles<down_kernel<4>>(rows * tiles, kLoadingWarps, x_map, w_map, a, stream);
  } else {
    launch_tiles<down_kernel<kMaxExperts / 32>>(rows * tiles, kLoadingWarps, x_map, w_map, a, stream);
  }
}

}  // namespace detinfer
