// The prefill kernel, compiled for one number of columns in each prefill_*.cu.
#pragma once

#include <algorithm>

#include "attention/flashinfer/prefill.cuh"

namespace detinfer::flashinfer {

template <int D, bool kShared>
__global__ void __launch_bounds__(kThreads, 1) prefill_kernel(const __grid_constant__ PrefillArgs args) {
  extern __shared__ __align__(128) uint8_t memory[];
  let_next_start();
  using S = Shared<D>;
  const uint32_t shared = shared_address(memory);
  // What is never copied must be finite: columns behind head_dim.
  if (args.head_dim < D) {
    for (int at = threadIdx.x * 16; at < S::kRules; at += kThreads * 16) {
      *reinterpret_cast<uint4*>(memory + at) = make_uint4(0, 0, 0, 0);
    }
  }
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < S::kStages; ++stage) {
      barrier_init(S::full(shared, stage), kThreads);
      barrier_init(S::empty(shared, stage), kWarps);
    }
  }
  __syncthreads();
  wait_for_inputs();
  Prefill<D, kShared>(args, memory).run();
}

template <int D, bool kShared>
void launch_prefill_blocks(int blocks, const PrefillArgs& args, cudaStream_t stream) {
  static const cudaError_t has_room = cudaFuncSetAttribute(
      prefill_kernel<D, kShared>, cudaFuncAttributeMaxDynamicSharedMemorySize, Shared<D>::kBytes);
  CUDA_CHECK(has_room);
  launch(prefill_kernel<D, kShared>, blocks, kThreads, Shared<D>::kBytes, stream, args);
}

template <int D>
void launch_prefill(const PrefillArgs& args, cudaStream_t stream) {
  if (args.share_count > 0) {
    launch_prefill_blocks<D, true>(args.share_count, args, stream);
  } else {
    launch_prefill_blocks<D, false>(std::min(multiprocessor_count(), args.tile_count * args.kv_heads), args, stream);
  }
}

template <int D>
int tile_rows() {
  return kTileRows<D>;
}

template <int D>
int total_floats() {
  return Shared<D>::kTotalPieces * kThreads * 4;
}

}  // namespace detinfer::flashinfer
