// Gate, up and SwiGLU of an expert layer for few rows. A tile is some outputs of one expert for one row. Gates and ups
// alternate in groups of 8, so that a thread has both of an output.
#include "core/tensor_map.cuh"
#include "kernels/mlp/swiglu.cuh"
#include "kernels/moe/choose_row.cuh"
#include "kernels/moe/few_rows.cuh"

namespace detinfer {
namespace few_rows {
namespace {

struct GateUp {
  const float* logits;
  int rows;
  RouteSpec spec;
  /// [rows][top_k][n]
  bf16* y;
  /// Outputs of an expert, of a tile, and tiles of an expert.
  int n, outputs, tiles;
  /// Stages of a chain.
  int steps;
  StageShape stages;
};

struct GateUpTile {
  int row, rank, output;

  __device__ __forceinline__ GateUpTile(const GateUp& a, int tile) {
    const int entry = tile / a.tiles;
    row = entry / a.spec.top_k;
    rank = entry % a.spec.top_k;
    output = tile % a.tiles * a.outputs;
  }
};

template <int kShare>
__device__ __forceinline__ void produce(const GateUp& a, const CUtensorMap& x, const CUtensorMap& w,
                                        const Stages& stages, int tiles, int lane) {
  const uint64_t policy = cache_policy(CacheHint::kStream);
  Ring ring;
  for (int tile = blockIdx.x, turn = 0; tile < tiles; tile += gridDim.x) {
    const GateUpTile at(a, tile);
    // The ranks behind this one need not be known.
    const RouteSpec spec = {a.spec.experts, at.rank + 1, true};
    const RankedExpert choice = choose_row<kShare>(a.logits + int64_t(at.row) * spec.experts, spec, lane);
    const int expert = __shfl_sync(~0u, choice.id, at.rank);
    for (int step = 0; step < a.steps; ++step, ++turn, ring.advance(stages.count)) {
      if (turn >= stages.count) barrier_wait(stages.empty(ring.stage), ring.parity ^ 1);
      if (elect_one()) {
        const uint32_t full = stages.full(ring.stage);
        barrier_expect(full, stages.w_bytes + 128);
        tma_load_2d(stages.w(ring.stage), &w, step * 64, 2 * (expert * a.n + at.output), full, policy);
        tma_load_2d(stages.x(ring.stage), &x, step * 64, at.row, full);
      }
      __syncwarp();
    }
  }
}

__device__ __forceinline__ void consume(const GateUp& a, const Stages& stages, int tiles, int warp, int lane) {
  const int output = warp * 8 + lane / 4;
  Ring ring;
  for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    float acc[4];
    multiply(acc, stages, ring, a.steps, warp / 4, lane);
    const GateUpTile at(a, tile);
    if (lane % 4 != 0 || output >= min(a.outputs, a.n - at.output)) continue;
    // Column 0 of the products is the row's.
    const uint32_t result = exact_swiglu(pack_bf16(acc[0], 0.0f), pack_bf16(acc[2], 0.0f));
    a.y[(int64_t(at.row) * a.spec.top_k + at.rank) * a.n + at.output + output] = bf16{uint16_t(result)};
  }
}

template <int kShare>
__global__ void __launch_bounds__((kMultiplyingWarps + 1) * 32)
    gate_up_kernel(const __grid_constant__ CUtensorMap x, const __grid_constant__ CUtensorMap w, const GateUp a) {
  extern __shared__ uint8_t shared[];
  const Place at(a.stages, shared, x, w, 1);
  const int tiles = a.rows * a.spec.top_k * a.tiles;
  wait_for_inputs();
  let_next_start();  // not before: the product of down reads logits without waiting for more
  if (at.warp == kMultiplyingWarps) {
    produce<kShare>(a, x, w, at.stages, tiles, at.lane);
  } else {
    consume(a, at.stages, tiles, at.warp, at.lane);
  }
}

/// Outputs of a tile: those of the busiest block should be fewest, each tile costing as much as some outputs more.
int choose_outputs(int entries, int n) {
  int best = 64, least = 0;
  for (int outputs = best; outputs >= 8; outputs -= 8) {
    const int tiles = entries * ceil_div(n, outputs);
    const int busiest = ceil_div(tiles, multiprocessor_count()) * (outputs + 4);
    if (least != 0 && busiest >= least) continue;
    least = busiest;
    best = outputs;
  }
  return best;
}

}  // namespace
}  // namespace few_rows

void few_rows_gate_up_cuda(const bf16* x, const float* logits, int rows, const RouteSpec& spec, const DeviceMatrix& w,
                           bf16* y, cudaStream_t stream) {
  using namespace few_rows;
  check_route_spec(spec);
  if (rows == 0) return;
  const int n = w.n / spec.experts / 2, outputs = choose_outputs(rows * spec.top_k, n), tiles = ceil_div(n, outputs);
  const GateUp a{logits, rows, spec, y, n, outputs, tiles, ceil_div(w.k, 64), StageShape(2 * outputs)};
  const CUtensorMap x_map = tensor_map_2d(x, w.k, rows, w.k, 64, 1);
  const CUtensorMap w_map = tensor_map_2d(w.data, w.k, w.n, w.k, 64, 2 * outputs);
  const int all = rows * spec.top_k * tiles;
  if (spec.experts <= 4 * 32) {
    launch_tiles<gate_up_kernel<4>>(all, 1, x_map, w_map, a, stream);
  } else {
    launch_tiles<gate_up_kernel<kMaxExperts / 32>>(all, 1, x_map, w_map, a, stream);
  }
}

}  // namespace detinfer
