// The ring of tiles as those see it that read it.
#pragma once

#include "attention/flashinfer/loader.cuh"

namespace detinfer::flashinfer {

template <int D>
class Ring {
  using S = Shared<D>;

 public:
  __device__ __forceinline__ Ring(const PrefillArgs& args, uint8_t* memory)
      : shared_(shared_address(memory)), loader_(args, memory) {
    loader_.start();
  }

  /// Waits for the next tile. @return where it lies in shared memory
  __device__ __forceinline__ uint32_t wait() const {
    barrier_wait(S::full(shared_, at_.stage), at_.parity);
    return shared_ + at_.stage * S::kStage;
  }

  /// The warp has read the tile.
  __device__ __forceinline__ void release() {
    __syncwarp();
    if (threadIdx.x % 32 == 0) barrier_arrive(S::empty(shared_, at_.stage));
    at_.advance();
    loader_.feed();
  }

 private:
  const uint32_t shared_;
  RingPosition<S::kStages> at_;
  Loader<D> loader_;
};

}  // namespace detinfer::flashinfer
