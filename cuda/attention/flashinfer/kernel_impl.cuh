// The kernel, compiled for one number of columns in each kernel_*.cu.
#pragma once

#include "attention/flashinfer/decode.cuh"
#include "attention/flashinfer/kernel.cuh"
#include "attention/flashinfer/prefill.cuh"

namespace detinfer::flashinfer {

template <int D>
__device__ __forceinline__ void run_block(const FlashinferArgs& args, uint8_t* memory) {
  using S = Shared<D>;
  Ring<D> ring(args, memory);
  Work::Kind last_kind = Work::kNone;
  for (int n = 0;; ++n) {
    const Slot& slot = wait_dealt<D>(memory, shared_address(memory), n);
    const Work work(args.step, slot);
    if (work.kind == Work::kNone) return;
    // Both kinds use the same shared memory, among other warps.
    if (work.kind != last_kind) named_barrier_sync(1, kThreads);
    last_kind = work.kind;
    if (work.kind == Work::kTile) {
      Prefill<D>(args, memory).run(ring, reinterpret_cast<const PrefillTile&>(slot.record), work.kv_head);
    } else {
      Decode<D>(args, memory).run(ring, reinterpret_cast<const DecodeSplit&>(slot.record), work.kv_head);
    }
  }
}

template <int D>
__global__ void __launch_bounds__(kThreads, 1) step_kernel(const __grid_constant__ FlashinferArgs args) {
  extern __shared__ __align__(128) uint8_t memory[];
  let_next_start();
  using S = Shared<D>;
  const uint32_t shared = shared_address(memory);
  // What is never copied must be finite: columns behind head_dim, query rows that a group does not have.
  const int zeroed = args.head_dim < D ? S::kWeights : S::kStages * S::kStage;
  for (int at = threadIdx.x * 16; at < zeroed; at += kThreads * 16) {
    if (args.head_dim < D || at % S::kStage >= S::kStageQueries) {
      *reinterpret_cast<uint4*>(memory + at) = make_uint4(0, 0, 0, 0);
    }
  }
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < S::kStages; ++stage) {
      barrier_init(S::full(shared, stage), kThreads);
      barrier_init(S::empty(shared, stage), kWarps);
    }
    for (int n = 0; n < S::kSlotCount; ++n) barrier_init(S::dealt(shared, n), 32);
  }
  __syncthreads();
  run_block<D>(args, memory);
}

template <int D>
void launch_step(const FlashinferArgs& args, cudaStream_t stream) {
  static const int blocks = [] {
    CUDA_CHECK(cudaFuncSetAttribute(step_kernel<D>, cudaFuncAttributeMaxDynamicSharedMemorySize, Shared<D>::kBytes));
    return multiprocessor_count();
  }();
  launch(step_kernel<D>, blocks, kThreads, Shared<D>::kBytes, stream, args);
}

}  // namespace detinfer::flashinfer
