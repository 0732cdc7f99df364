#include "kernels/norm/rms_norm_cuda.h"

#include <algorithm>
#include <string>

#include "core/bf16_vector.cuh"
#include "core/error.h"
#include "core/launch.cuh"

namespace detinfer {
namespace {

/// A thread holds whole groups of 8, one in each run of kMaxThreads groups, so that a run is a subtree of the sum.
constexpr int kMaxThreads = 512, kMaxWarps = kMaxThreads / 32;
/// Threads of a multiprocessor that their registers leave room for.
constexpr int kResidentThreads = 1536;

struct NormArgs {
  const bf16* x;
  /// Null: there is nothing to add.
  const bf16* delta;
  /// x + delta, if there is a delta.
  bf16* sum;
  const bf16* weight;
  bf16* y;
  int rows;
  int n;
  float eps;
};

__device__ __forceinline__ float sum_of_squares(const float (&x)[kVector]) {
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < kVector; ++i) sum = __fmaf_rn(x[i], x[i], sum);
  return sum;
}

/// The adjacent binary tree over the lanes of each kLanes, given to all of them.
template <int kLanes>
__device__ __forceinline__ float tree_sum(float x) {
#pragma unroll
  for (int distance = 1; distance < kLanes; distance *= 2) x = x + __shfl_xor_sync(~0u, x, distance);
  return x;
}

/// Rows blockIdx.x, + gridDim.x, …; with few registers to a row the next one is on its way while one is worked on.
template <int kRuns, bool kAdd, bool kAligned>
__global__ void __launch_bounds__(kMaxThreads) rms_norm_kernel(const __grid_constant__ NormArgs args) {
  constexpr bool kAhead = kRuns <= 2;
  __shared__ float warp_sums[2][kRuns][kMaxWarps];
  let_next_start();
  const int n = args.n, warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
  uint4 weight[kRuns], x[kRuns], delta[kRuns];
  const auto first = [](int run) { return (run * kMaxThreads + int(threadIdx.x)) * kVector; };
  const auto load = [&](int64_t row) {
#pragma unroll
    for (int run = 0; run < kRuns; ++run) {
      x[run] = load_vector<kAligned>(args.x + row * n, first(run), n);
      if (kAdd) delta[run] = load_vector<kAligned>(args.delta + row * n, first(run), n);
    }
  };
#pragma unroll
  for (int run = 0; run < kRuns; ++run) weight[run] = load_vector<kAligned>(args.weight, first(run), n);
  wait_for_inputs();
  if (kAhead && blockIdx.x < args.rows) load(blockIdx.x);
  int turn = 0;
  for (int64_t row = blockIdx.x; row < args.rows; row += gridDim.x, turn ^= 1) {
    if (!kAhead) load(row);
    uint4 own[kRuns];
#pragma unroll
    for (int run = 0; run < kRuns; ++run) {
      own[run] = x[run];
      if (kAdd) {
        float a[kVector], b[kVector];
        unpack(x[run], a);
        unpack(delta[run], b);
#pragma unroll
        for (int i = 0; i < kVector; ++i) a[i] = a[i] + b[i];
        own[run] = pack(a);
        store_vector<kAligned>(args.sum + row * n, first(run), n, own[run]);
      }
    }
    if (kAhead && row + gridDim.x < args.rows) load(row + gridDim.x);
#pragma unroll
    for (int run = 0; run < kRuns; ++run) {
      float values[kVector];
      unpack(own[run], values);
      const float sum = tree_sum<32>(sum_of_squares(values));
      if (lane == 0) warp_sums[turn][run][warp] = sum;
    }
    // One barrier a row: the sums of the row before last, which this turn overwrites, were read before the last barrier.
    __syncthreads();
    float sums[kRuns];
#pragma unroll
    for (int run = 0; run < kRuns; ++run) {
      const int from = lane % kMaxWarps;
      sums[run] = tree_sum<kMaxWarps>(from < warps ? warp_sums[turn][run][from] : 0.0f);
    }
#pragma unroll
    for (int half = kRuns / 2; half > 0; half /= 2) {
#pragma unroll
      for (int run = 0; run < half; ++run) sums[run] = sums[2 * run] + sums[2 * run + 1];
    }
    const float r = __fdiv_rn(1.0f, __fsqrt_rn(__fdiv_rn(sums[0], float(n)) + args.eps));
#pragma unroll
    for (int run = 0; run < kRuns; ++run) {
      float values[kVector], weights[kVector];
      unpack(own[run], values);
#pragma unroll
      for (int i = 0; i < kVector; ++i) values[i] = values[i] * r;
      unpack(pack(values), values);
      unpack(weight[run], weights);
#pragma unroll
      for (int i = 0; i < kVector; ++i) values[i] = weights[i] * values[i];
      store_vector<kAligned>(args.y + row * n, first(run), n, pack(values));
    }
  }
}

template <int kRuns, bool kAdd>
void launch_runs(const NormArgs& args, cudaStream_t stream) {
  const int groups = (args.n + kVector - 1) / kVector;
  const int threads = std::min(kMaxThreads, (groups + 31) / 32 * 32);
  const int blocks = std::min(args.rows, multiprocessor_count() * (kResidentThreads / threads));
  auto* const kernel =
      args.n % kVector == 0 ? rms_norm_kernel<kRuns, kAdd, true> : rms_norm_kernel<kRuns, kAdd, false>;
  launch(kernel, blocks, threads, 0, stream, args);
}

template <bool kAdd>
void launch_norm(const NormArgs& args, cudaStream_t stream) {
  if (args.n <= 0 || args.n % 2 != 0 || args.n > kMaxNormLength) {
    throw Error(ErrorCode::kUnsupported, "rms_norm on a GPU works on rows of an even length of at most " +
                                             std::to_string(kMaxNormLength) + ", not " + std::to_string(args.n));
  }
  if (args.rows == 0) return;
  constexpr int kRun = kMaxThreads * kVector;
  if (args.n <= kRun) {
    launch_runs<1, kAdd>(args, stream);
  } else if (args.n <= 2 * kRun) {
    launch_runs<2, kAdd>(args, stream);
  } else {
    launch_runs<8, kAdd>(args, stream);
  }
}

}  // namespace

void rms_norm_cuda(const bf16* x, int rows, int n, const bf16* weight, float eps, bf16* y, cudaStream_t stream) {
  launch_norm<false>({x, nullptr, nullptr, weight, y, rows, n, eps}, stream);
}

void add_rms_norm_cuda(bf16* residual, const bf16* delta, int rows, int n, const bf16* weight, float eps, bf16* y,
                       cudaStream_t stream) {
  launch_norm<true>({residual, delta, residual, weight, y, rows, n, eps}, stream);
}

}  // namespace detinfer
