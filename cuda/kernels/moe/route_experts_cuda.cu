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
/// Rows of a thread block that puts their entries in order, and its threads.
constexpr int kGroupingRows = 128, kGroupingThreads = 1024;

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

/// Places the entries of kGroupingRows rows. How many of each expert lie before them, every thread block counts anew.
__global__ void __launch_bounds__(kGroupingThreads) group_kernel(int rows, RouteSpec spec, ExpertRoutes routes) {
  constexpr int kWords = kGroupingRows / 32;
  // Of each expert: entries of rows before this block's, those of the others, and which of its rows chose it.
  __shared__ int before_of[kMaxExperts], rest_of[kMaxExperts], first[kMaxExperts];
  __shared__ uint32_t rows_of[kMaxExperts][kWords];
  const int begin = blockIdx.x * kGroupingRows * spec.top_k, all = rows * spec.top_k;
  const int end = min(begin + kGroupingRows * spec.top_k, all);
  for (int i = threadIdx.x; i < spec.experts; i += kGroupingThreads) {
    before_of[i] = rest_of[i] = 0;
#pragma unroll
    for (uint32_t& word : rows_of[i]) word = 0;
  }
  __syncthreads();
  wait_for_inputs();
  // The choices of the block's own rows, asked for once.
  int own[kMaxTopK * kGroupingRows / kGroupingThreads];
#pragma unroll
  for (int j = 0; j < int(sizeof(own) / sizeof(int)); ++j) {
    const int i = begin + threadIdx.x + j * kGroupingThreads;
    own[j] = i < end ? routes.experts[i] : -1;
  }
#pragma unroll 8
  for (int i = threadIdx.x; i < all; i += kGroupingThreads) {
    atomicAdd(i < begin ? &before_of[routes.experts[i]] : &rest_of[routes.experts[i]], 1);
  }
#pragma unroll
  for (int j = 0; j < int(sizeof(own) / sizeof(int)); ++j) {
    if (own[j] < 0) break;
    const int row = (threadIdx.x + j * kGroupingThreads) / spec.top_k;
    atomicOr(&rows_of[own[j]][row / 32], 1u << row % 32);
  }
  __syncthreads();
  if (threadIdx.x < 32) {
    const int lane = threadIdx.x, share = (spec.experts + 31) / 32;
    const int mine = min(lane * share, spec.experts), behind = min(mine + share, spec.experts);
    int sum = 0;
    for (int i = mine; i < behind; ++i) sum += before_of[i] + rest_of[i];
    int before = sum_before(sum, lane);
    for (int i = mine; i < behind; ++i) {
      first[i] = before;
      before += before_of[i] + rest_of[i];
    }
  }
  __syncthreads();
  if (blockIdx.x == 0) {
    for (int i = threadIdx.x; i < spec.experts; i += kGroupingThreads) routes.first[i] = first[i];
    if (threadIdx.x == 0) routes.first[spec.experts] = all;
  }
#pragma unroll
  for (int j = 0; j < int(sizeof(own) / sizeof(int)); ++j) {
    const int expert = own[j];
    if (expert < 0) break;
    const int i = threadIdx.x + j * kGroupingThreads, row = i / spec.top_k;
    int place = first[expert] + before_of[expert] + __popc(rows_of[expert][row / 32] & ((1u << row % 32) - 1));
    for (int word = 0; word < row / 32; ++word) place += __popc(rows_of[expert][word]);
    routes.place[begin + i] = place;
    routes.row[place] = begin / spec.top_k + row;
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
  launch(group_kernel, (rows + kGroupingRows - 1) / kGroupingRows, kGroupingThreads, 0, stream, rows, spec, routes);
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
