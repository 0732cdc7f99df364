#include "core/launch.cuh"
#include "kernels/moe/choose_row.cuh"
#include "kernels/moe/moe_cuda.h"
#include "kernels/moe/warp_sum.cuh"

namespace detinfer {
namespace {

/// Rows that one thread block routes, each by a warp: the bits of a word say which of them chose an expert.
constexpr int kFewRows = 32;
/// Rows of a thread block that only chooses.
constexpr int kChoosingRows = 8;
constexpr int kGroupingWarps = 32;

__device__ __forceinline__ void store_choice(const RankedExpert& choice, int row, int lane, const RouteSpec& spec,
                                             const ExpertRoutes& routes) {
  if (lane >= spec.top_k) return;
  routes.experts[int64_t(row) * spec.top_k + lane] = choice.id;
  routes.weights[int64_t(row) * spec.top_k + lane] = choice.weight;
}

/// All of it for kFewRows rows at most, by one thread block of a warp for each.
template <int kShare>
__global__ void __launch_bounds__(kFewRows * 32) route_kernel(const float* logits, RouteSpec spec, ExpertRoutes routes) {
  __shared__ uint32_t rows_of[kMaxExperts];
  __shared__ int32_t first[kMaxExperts];
  const int row = threadIdx.x / 32, lane = threadIdx.x % 32;
  for (int i = threadIdx.x; i < spec.experts; i += blockDim.x) rows_of[i] = 0;
  __syncthreads();
  wait_for_inputs();
  const RankedExpert choice = choose_row<kShare>(logits + row * spec.experts, spec, lane);
  store_choice(choice, row, lane, spec, routes);
  if (lane < spec.top_k) atomicOr(&rows_of[choice.id], 1u << row);
  __syncthreads();
  if (row == 0) {
    const int share = (spec.experts + 31) / 32;
    const int begin = min(lane * share, spec.experts), end = min(begin + share, spec.experts);
    int sum = 0;
    for (int i = begin; i < end; ++i) sum += __popc(rows_of[i]);
    int before = sum_before(sum, lane);
    for (int i = begin; i < end; ++i) {
      first[i] = before;
      routes.first[i] = before;
      before += __popc(rows_of[i]);
    }
    if (lane == 31) routes.first[spec.experts] = before;
  }
  __syncthreads();
  if (lane < spec.top_k) {
    const int32_t place = first[choice.id] + __popc(rows_of[choice.id] & ((1u << row) - 1));
    routes.place[row * spec.top_k + lane] = place;
    routes.row[place] = row;
  }
  publish_and_let_next_start();
}

/// The choices of many rows, a warp for each.
template <int kShare>
__global__ void __launch_bounds__(kChoosingRows * 32)
    choose_kernel(const float* logits, int rows, RouteSpec spec, ExpertRoutes routes) {
  let_next_start();
  const int row = blockIdx.x * kChoosingRows + threadIdx.x / 32, lane = threadIdx.x % 32;
  wait_for_inputs();
  if (row >= rows) return;
  const RankedExpert choice = choose_row<kShare>(logits + int64_t(row) * spec.experts, spec, lane);
  store_choice(choice, row, lane, spec, routes);
}

/// Block e finds the entries of expert e. Every warp looks at its part of all choices: first it counts, then it places.
__global__ void __launch_bounds__(kGroupingWarps * 32) group_kernel(int rows, RouteSpec spec, ExpertRoutes routes) {
  __shared__ int equal_of[kGroupingWarps], less_of[kGroupingWarps];
  const int expert = blockIdx.x, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int entries = rows * spec.top_k, steps = (entries + 31) / 32;
  const int part = (steps + kGroupingWarps - 1) / kGroupingWarps;
  const int begin = min(warp * part, steps) * 32, end = min(begin + part * 32, entries);
  wait_for_inputs();
  int equal = 0, less = 0;
#pragma unroll 8
  for (int i = begin + lane; i < end; i += 32) {
    const int32_t chosen = routes.experts[i];
    equal += chosen == expert;
    less += chosen < expert;
  }
  equal = __reduce_add_sync(~0u, equal);
  less = __reduce_add_sync(~0u, less);
  if (lane == 0) {
    equal_of[warp] = equal;
    less_of[warp] = less;
  }
  __syncthreads();
  const int first = __reduce_add_sync(~0u, less_of[lane]);
  int at = first + __shfl_sync(~0u, sum_before(equal_of[lane], lane), warp);
  if (threadIdx.x == 0) {
    routes.first[expert] = first;
    if (expert == spec.experts - 1) routes.first[spec.experts] = entries;
  }
#pragma unroll 4
  for (int i = begin; i < end; i += 32) {
    const bool mine = i + lane < end && routes.experts[i + lane] == expert;
    const uint32_t lanes = __ballot_sync(~0u, mine);
    if (mine) {
      const int place = at + __popc(lanes & ((1u << lane) - 1));
      routes.place[i + lane] = place;
      routes.row[place] = (i + lane) / spec.top_k;
    }
    at += __popc(lanes);
  }
  publish_and_let_next_start();
}

template <int kShare>
void launch_route(const float* logits, int rows, const RouteSpec& spec, const ExpertRoutes& routes,
                  cudaStream_t stream) {
  if (rows <= kFewRows) {
    launch(route_kernel<kShare>, 1, rows * 32, 0, stream, logits, spec, routes);
    return;
  }
  launch(choose_kernel<kShare>, (rows + kChoosingRows - 1) / kChoosingRows, kChoosingRows * 32, 0, stream, logits, rows,
         spec, routes);
  launch(group_kernel, spec.experts, kGroupingWarps * 32, 0, stream, rows, spec, routes);
}

}  // namespace

void route_experts_cuda(const float* logits, int rows, const RouteSpec& spec, const ExpertRoutes& routes,
                        cudaStream_t stream) {
  check_route_spec(spec);
  if (rows == 0) return;
  if (spec.experts <= 4 * 32) {
    launch_route<4>(logits, rows, spec, routes, stream);
  } else {
    launch_route<kMaxExperts / 32>(logits, rows, spec, routes, stream);
  }
}

}  // namespace detinfer
