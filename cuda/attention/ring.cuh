// What the thread blocks of backends share that take pieces of work one after another.
#pragma once

#include "core/launch.cuh"

namespace detinfer::attention {

/// Walks a ring of stages in shared memory.
template <int kStages>
struct RingPosition {
  int stage = 0;
  uint32_t parity = 0;
  __device__ __forceinline__ void advance() {
    if (++stage == kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

/// Waits for the kernel before. A block that has nothing to do ends at once instead, so that one of the next kernel can
/// begin in its place; the first one always waits, so that this kernel does not end before the one before it.
__device__ __forceinline__ void wait_unless_idle(bool has_work) {
  if (has_work || blockIdx.x == 0) wait_for_inputs();
}

}  // namespace detinfer::attention
