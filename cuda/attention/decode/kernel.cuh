// The kernel of decoding, for each backend with its own loader.
#pragma once

#include "attention/decode/merge.cuh"
#include "attention/decode/producer.cuh"
#include "attention/decode/rows.cuh"
#include "core/cuda_check.h"

namespace detinfer::attention {

template <template <int, int> class LoaderOf, int D, int kOctets>
constexpr int kDecodeThreads = (kDecodeWarps + kMergeWarps + LoaderOf<D, kOctets>::kWarps) * 32;

/// @tparam kRotates whether rope is left to it: args.rope has q, k and v of a linear
template <template <int, int> class LoaderOf, int D, int kOctets, bool kRotates>
__global__ void __launch_bounds__(kDecodeThreads<LoaderOf, D, kOctets>, 1)
    decode_kernel(const __grid_constant__ typename LoaderOf<D, kOctets>::Source source,
                  const __grid_constant__ DecodeArgs args) {
  extern __shared__ __align__(1024) uint8_t memory[];
  let_next_start();
  using Shared = DecodeShared<D, kOctets>;
  using Loader = LoaderOf<D, kOctets>;
  const uint32_t shared = shared_address(memory);
  if (Loader::kPadded && args.head_dim < D) {
    // Columns behind head_dim are never loaded.
    for (int at = threadIdx.x * 16; at < Shared::kLast; at += kDecodeThreads<LoaderOf, D, kOctets> * 16) {
      *reinterpret_cast<uint4*>(memory + at) = make_uint4(0, 0, 0, 0);
    }
  }
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < Shared::kStages; ++stage) {
      barrier_init(Shared::full(shared, stage), Loader::kTileArrivals);
      barrier_init(Shared::empty(shared, stage), kDecodeWarps);
    }
    for (int slot = 0; slot < Shared::kSlots; ++slot) {
      barrier_init(Shared::slot_full(shared, slot), Loader::kTaskArrivals);
      barrier_init(Shared::slot_stored(shared, slot), kDecodeWarps);
      barrier_init(Shared::slot_empty(shared, slot), kMergeWarps);
    }
    Loader::barriers_ready();
  }
  __syncthreads();
  const int warp = __shfl_sync(~0u, threadIdx.x / 32, 0);
  if (warp < kDecodeWarps) {
    DecodeRows<LoaderOf, D, kOctets, kRotates>(args, memory).run();
  } else if (warp < kDecodeWarps + kMergeWarps) {
    DecodeMerger<LoaderOf, D, kOctets>(args, memory).run();
  } else {
    DecodeProducer<LoaderOf, D, kOctets>(source, args, memory, warp - kDecodeWarps - kMergeWarps).run();
  }
}

template <template <int, int> class LoaderOf, int D, int kOctets, bool kRotates>
void launch_decode_kernel(const typename LoaderOf<D, kOctets>::Source& source, const DecodeArgs& args,
                          cudaStream_t stream) {
  constexpr int kBytes = DecodeShared<D, kOctets>::kBytes;
  auto* const kernel = decode_kernel<LoaderOf, D, kOctets, kRotates>;
  static const int blocks = [&] {
    CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes));
    return multiprocessor_count();
  }();
  launch(kernel, blocks, kDecodeThreads<LoaderOf, D, kOctets>, kBytes, stream, source, args);
}

template <template <int, int> class LoaderOf, int D, int kOctets>
void launch_decode_octets(const typename LoaderOf<D, kOctets>::Source& source, const DecodeArgs& args,
                          cudaStream_t stream) {
  if (args.rope.qkv != nullptr) {
    launch_decode_kernel<LoaderOf, D, kOctets, true>(source, args, stream);
  } else {
    launch_decode_kernel<LoaderOf, D, kOctets, false>(source, args, stream);
  }
}

/// The number of blocks depends on the device alone, so that the launch can stand in a graph.
template <template <int, int> class LoaderOf, int D>
void launch_decode(const typename LoaderOf<D, 1>::Source& source, const DecodeArgs& args, cudaStream_t stream) {
  if (args.heads / args.kv_heads > 8) {
    launch_decode_octets<LoaderOf, D, 2>(source, args, stream);
  } else {
    launch_decode_octets<LoaderOf, D, 1>(source, args, stream);
  }
}

}  // namespace detinfer::attention
