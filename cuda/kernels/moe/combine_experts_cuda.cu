#include "core/bf16_vector.cuh"
#include "core/launch.cuh"
#include "kernels/moe/moe_cuda.h"

namespace detinfer {
namespace {

constexpr int kThreads = 256;

/// Thread x of the blocks (i, ·) computes vector x of row i. @param vectors of a row
__global__ void __launch_bounds__(kThreads)
    combine_kernel(const uint4* y, int vectors, int top_k, const float* weights, const int32_t* place, uint4* out) {
  let_next_start();
  const int row = blockIdx.x, at = blockIdx.y * blockDim.x + threadIdx.x;
  // Lane i has rank i.
  const int lane = threadIdx.x % 32, entry = row * top_k + min(lane, top_k - 1);
  const float weight_of_lane = __ldcg(weights + entry);
  const int32_t place_of_lane = __ldcg(place + entry);
  wait_for_inputs();
  const int column = min(at, vectors - 1);
  float acc[kVector] = {};
#pragma unroll 8
  for (int rank = 0; rank < top_k; ++rank) {
    const float weight = __shfl_sync(~0u, weight_of_lane, rank);
    const int64_t from = __shfl_sync(~0u, place_of_lane, rank);
    float x[kVector];
    unpack(y[from * vectors + column], x);
#pragma unroll
    for (int i = 0; i < kVector; ++i) acc[i] = __fmaf_rn(weight, x[i], acc[i]);
  }
  if (at < vectors) out[int64_t(row) * vectors + at] = pack(acc);
}

}  // namespace

void combine_experts_cuda(const bf16* y, int rows, int n, const RouteSpec& spec, const ExpertRoutes& routes, bf16* out,
                          cudaStream_t stream) {
  static_assert(kMaxTopK <= 32, "a warp holds the ranks of a row");
  check_expert_outputs(n);
  if (rows == 0) return;
  const int vectors = n / kVector;
  // A few rows are spread over more multiprocessors.
  const int threads = rows <= 16 ? 64 : kThreads;
  launch(combine_kernel, dim3(rows, (vectors + threads - 1) / threads), threads, 0, stream,
         reinterpret_cast<const uint4*>(y), vectors, spec.top_k, routes.weights, routes.place,
         reinterpret_cast<uint4*>(out));
}

}  // namespace detinfer
