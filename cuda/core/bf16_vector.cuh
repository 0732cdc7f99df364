// Eight bf16 at once: 16 bytes are the widest access of a thread.
#pragma once

#include <cuda_bf16.h>

#include "core/numerics.h"

namespace detinfer {

/// Elements of a vector.
constexpr int kVector = 8;

/// Two f32 as bf16, the first in the lower half. The instruction rounds as to_bf16() does, NaNs too.
__device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return reinterpret_cast<const uint32_t&>(pair);
}

__device__ __forceinline__ float low_bf16(uint32_t pair) { return bits_float(pair << 16); }
__device__ __forceinline__ float high_bf16(uint32_t pair) { return bits_float(pair & 0xFFFF0000u); }

__device__ __forceinline__ void unpack(const uint4& v, float (&x)[kVector]) {
  const uint32_t words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    x[2 * i] = low_bf16(words[i]);
    x[2 * i + 1] = high_bf16(words[i]);
  }
}

__device__ __forceinline__ uint4 pack(const float (&x)[kVector]) {
  return make_uint4(pack_bf16(x[0], x[1]), pack_bf16(x[2], x[3]), pack_bf16(x[4], x[5]), pack_bf16(x[6], x[7]));
}

/// Elements first … first + 7 of a row of n, n even; those behind its end are 0.
/// @tparam kAligned n is a multiple of 8 and the row aligned to 16 bytes
template <bool kAligned>
__device__ __forceinline__ uint4 load_vector(const bf16* row, int first, int n) {
  if constexpr (kAligned) {
    return first < n ? *reinterpret_cast<const uint4*>(row + first) : make_uint4(0, 0, 0, 0);
  } else {
    const auto word = [&](int at) { return at < n ? *reinterpret_cast<const uint32_t*>(row + at) : 0; };
    return make_uint4(word(first), word(first + 2), word(first + 4), word(first + 6));
  }
}

/// The reverse; what lies behind the row's end is not stored.
template <bool kAligned>
__device__ __forceinline__ void store_vector(bf16* row, int first, int n, const uint4& v) {
  if constexpr (kAligned) {
    if (first < n) *reinterpret_cast<uint4*>(row + first) = v;
  } else {
    const auto store = [&](int at, uint32_t word) {
      if (at < n) *reinterpret_cast<uint32_t*>(row + at) = word;
    };
    store(first, v.x);
    store(first + 2, v.y);
    store(first + 4, v.z);
    store(first + 6, v.w);
  }
}

}  // namespace detinfer
