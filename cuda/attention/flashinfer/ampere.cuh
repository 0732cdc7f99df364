// Copies to shared memory that threads start and barriers wait for, as Ampere has them.
#pragma once

#include <cstdint>

namespace detinfer::flashinfer {

/// Copies 16 bytes past the first level of cache. @param to, from aligned to 16 bytes
__device__ __forceinline__ void copy_16(uint32_t to, const void* from) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}

/// Arrives at a barrier once all copies that this thread started are done.
__device__ __forceinline__ void arrive_when_copied(uint32_t barrier) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(barrier) : "memory");
}

/// Waits until the phase of a barrier with this parity has ended. Ampere has only the wait that does not suspend a warp.
__device__ __forceinline__ void wait_for_phase(uint32_t barrier, uint32_t parity) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
#define DETINFER_WAIT "mbarrier.test_wait"
#else
#define DETINFER_WAIT "mbarrier.try_wait"
#endif
  uint32_t done;
  do {
    asm volatile("{\n.reg .pred p;\n" DETINFER_WAIT ".parity.shared.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}"
                 : "=r"(done)
                 : "r"(barrier), "r"(parity)
                 : "memory");
  } while (!done);
#undef DETINFER_WAIT
}

}  // namespace detinfer::flashinfer
