#include "attention/fa3/decode_merge.cuh"
#include "attention/fa3/decode_rows.cuh"
#include "attention/fa3/kernels.cuh"
#include "core/cuda_check.h"

namespace detinfer::fa3 {
namespace {

template <int D, int kOctets>
__global__ void __launch_bounds__(kDecodeThreads, 1)
    decode_kernel(const __grid_constant__ CUtensorMap keys, const __grid_constant__ CUtensorMap values,
                  const __grid_constant__ DecodeArgs args) {
  extern __shared__ __align__(1024) uint8_t memory[];
  let_next_start();
  using Shared = DecodeShared<D, kOctets>;
  const uint32_t shared = shared_address(memory);
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < Shared::kStages; ++stage) {
      barrier_init(Shared::full(shared, stage), 1);
      barrier_init(Shared::empty(shared, stage), kDecodeWarps);
    }
    for (int slot = 0; slot < Shared::kSlots; ++slot) {
      barrier_init(Shared::slot_full(shared, slot), 1);
      barrier_init(Shared::slot_stored(shared, slot), kDecodeWarps);
      barrier_init(Shared::slot_empty(shared, slot), kMergeWarps);
    }
    barrier_init_done();
  }
  __syncthreads();
  const int warp = __shfl_sync(~0u, threadIdx.x / 32, 0);
  if (warp < kDecodeWarps) {
    DecodeRows<D, kOctets>(args, memory).run();
  } else if (warp < kDecodeWarps + kMergeWarps) {
    DecodeMerger<D, kOctets>(args, memory).run();
  } else {
    DecodeProducer<D, kOctets>(&keys, &values, args, memory).run();
  }
}

template <int D, int kOctets>
void launch_octets(const TensorMaps& maps, const DecodeArgs& args, cudaStream_t stream) {
  constexpr int kBytes = DecodeShared<D, kOctets>::kBytes;
  auto* const kernel = decode_kernel<D, kOctets>;
  static const int blocks = [&] {
    CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes));
    return multiprocessor_count();
  }();
  launch(kernel, blocks, kDecodeThreads, kBytes, stream, maps.keys, maps.values, args);
}

}  // namespace

void launch_decode(int head_dim, const TensorMaps& maps, const DecodeArgs& args, cudaStream_t stream) {
  const bool wide = args.heads / args.kv_heads > 8;
  if (head_dim == 128) {
    (wide ? launch_octets<128, 2> : launch_octets<128, 1>)(maps, args, stream);
  } else {
    (wide ? launch_octets<64, 2> : launch_octets<64, 1>)(maps, args, stream);
  }
}

}  // namespace detinfer::fa3
