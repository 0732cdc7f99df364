// Operands that are made on the device.
#pragma once

#include "core/numerics.h"

namespace detinfer::testing {

__device__ inline uint32_t mix(uint64_t x) {
  x ^= x >> 33;
  x *= 0xff51afd7ed558ccdull;
  x ^= x >> 33;
  x *= 0xc4ceb9fe1a85ec53ull;
  return uint32_t(x ^ (x >> 33));
}

/// Values of both signs and three binades: exact in bf16, with no need of a library's functions.
static __global__ void fill(bf16* values, size_t count, uint64_t seed, int exponent) {
  for (size_t i = blockIdx.x * size_t(blockDim.x) + threadIdx.x; i < count; i += size_t(gridDim.x) * blockDim.x) {
    const uint32_t h = mix(i + (seed << 40));
    values[i] = bf16{uint16_t((h & 0x807F) | (uint32_t(exponent) - (h >> 20) % 3) << 7)};
  }
}

}  // namespace detinfer::testing
