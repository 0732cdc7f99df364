#include <algorithm>

#include "attention/fa3/kernels.cuh"
#include "attention/fa3/prefill_rows.cuh"
#include "core/launch.cuh"

namespace detinfer::fa3 {
namespace {

template <int D>
__global__ void __launch_bounds__(kPrefillThreads, 1)
    prefill_kernel(const __grid_constant__ CUtensorMap queries, const __grid_constant__ CUtensorMap keys,
                   const __grid_constant__ CUtensorMap values, const __grid_constant__ PrefillArgs args) {
  extern __shared__ __align__(1024) uint8_t memory[];
  let_next_start();
  using Shared = PrefillShared<D>;
  const uint32_t shared = shared_address(memory);
  const PrefillBarriers barriers{shared + Shared::kBarriers};
  const int warp = __shfl_sync(~0u, threadIdx.x / 32, 0);
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < 2; ++stage) {
      barrier_init(barriers.keys_full(stage), 1);
      barrier_init(barriers.values_full(stage), 1);
      barrier_init(barriers.keys_empty(stage), kConsumerThreads / 32);
      barrier_init(barriers.values_empty(stage), kConsumerThreads / 32);
    }
    barrier_init(barriers.queries_full(), 1);
    barrier_init(barriers.queries_empty(), kConsumerThreads / 32);
  }
  if (threadIdx.x < kBlockKeys) {
    // Eight columns of ones: the 16 bytes of each row that the swizzle puts first.
    const int row = threadIdx.x;
    const uint32_t ones = 0x3F803F80;
    *reinterpret_cast<uint4*>(memory + Shared::kOnes + row * 128 + ((row & 7) << 4)) =
        make_uint4(ones, ones, ones, ones);
  }
  barrier_init_done();
  __syncthreads();
  wait_for_inputs();
  if (warp < 4) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 24;");
    if (warp == 0) produce<D>(&queries, &keys, &values, args, shared, barriers);
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 240;");
    PrefillRows<D>(args, memory, barriers).run();
  }
}

template <int D>
void launch_tiles(const TensorMaps& maps, const PrefillArgs& args, cudaStream_t stream) {
  constexpr int kBytes = PrefillShared<D>::kBytes;
  static const int most_blocks = [] {
    CUDA_CHECK(cudaFuncSetAttribute(prefill_kernel<D>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes));
    return multiprocessor_count();
  }();
  const int blocks = std::min(most_blocks, args.tile_count * args.kv_heads);
  launch(prefill_kernel<D>, blocks, kPrefillThreads, kBytes, stream, maps.queries, maps.keys, maps.values, args);
}

}  // namespace

void launch_prefill(int head_dim, const TensorMaps& maps, const PrefillArgs& args, cudaStream_t stream) {
  if (head_dim == 128) {
    launch_tiles<128>(maps, args, stream);
  } else {
    launch_tiles<64>(maps, args, stream);
  }
}

}  // namespace detinfer::fa3
