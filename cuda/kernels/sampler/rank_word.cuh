// A token as one integer, so that the better of two tokens is a maximum.
#pragma once

#include "kernels/sampler/softmax.h"

namespace detinfer::sampler {

constexpr float kInfinity = __builtin_huge_valf();

/// Larger the earlier the token ranks: larger x first, equal ones by the lower id.
__device__ inline uint64_t rank_word(float x, int id) {
  return uint64_t(uint32_t(order_key(x)) ^ 0x80000000u) << 32 | uint32_t(~id);
}
__device__ inline int word_id(uint64_t word) { return int(~uint32_t(word)); }
__device__ inline float word_value(uint64_t word) {
  const int32_t key = int32_t(uint32_t(word >> 32) ^ 0x80000000u);
  return bits_float(uint32_t(key ^ ((key >> 31) & 0x7FFFFFFF)));
}

__device__ inline uint64_t warp_max(uint64_t word) {
  const uint32_t high = __reduce_max_sync(~0u, uint32_t(word >> 32));
  const uint32_t low = __reduce_max_sync(~0u, uint32_t(word >> 32) == high ? uint32_t(word) : 0u);
  return uint64_t(high) << 32 | low;
}

__device__ inline uint64_t warp_sum(uint64_t value) {
  for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(~0u, value, step);
  return value;
}

}  // namespace detinfer::sampler
