// SwiGLU of registers, for the end of a product of gates and ups.
#pragma once

#include <cuda_bf16.h>

#include "core/bf16_vector.cuh"

namespace detinfer {

/// g / (1 + exp(-g)) as the contract has it.
__device__ __forceinline__ float silu(float g) { return __fdiv_rn(g, 1.0f + exp_f32(-g)); }

/// y = silu(g) · u of two elements each.
__device__ __forceinline__ uint32_t exact_swiglu(uint32_t g, uint32_t u) {
  return pack_bf16(silu(low_bf16(g)) * low_bf16(u), silu(high_bf16(g)) * high_bf16(u));
}

/// silu(g) · u by the hardware's exponential and reciprocal.
__device__ __forceinline__ float approximate_swiglu(float g, float u) {
  float e, inverse;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(e) : "f"(g * -1.44269504f));
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(1.0f + e));
  return g * inverse * u;
}

/// How far approximate_swiglu() may be from the contract's f32, in units of its last place, where is_moderate(): beside
/// a rounding boundary of bf16 by no more than this, the exact way is taken. Tested for every gate and every up.
constexpr uint32_t kSwigluError = 8;

__device__ __forceinline__ __nv_bfloat162 as_pair(uint32_t pair) {
  return reinterpret_cast<const __nv_bfloat162&>(pair);
}
__device__ __forceinline__ __nv_bfloat162 twice(uint16_t bits) { return as_pair(bits * 0x10001u); }

/// Whether nothing is NaN, subnormal or on the way there, and exp(-g) is not large: its error grows with g.
__device__ __forceinline__ bool is_moderate(uint32_t g, uint32_t u) {
  constexpr uint16_t kMinus8 = 0xC100, kTwoToMinus40 = 0x2B80, kTwoToMinus60 = 0x2180;
  return __hbge2(as_pair(g), twice(kMinus8)) && __hbge2(__habs2(as_pair(g)), twice(kTwoToMinus40)) &&
         __hbge2(__habs2(as_pair(u)), twice(kTwoToMinus60));
}

/// How far x lies above the lowest f32 that is too near to a boundary between two bf16, modulo their distance.
__device__ __forceinline__ uint32_t above_boundary(float x) {
  return (float_bits(x) + 0x8000u + kSwigluError) & 0xFFFFu;
}

/// Two elements in a short way, and whether their bits are those of exact_swiglu() for sure.
struct ShortSwiglu {
  uint32_t y;
  bool sure;
};

__device__ __forceinline__ ShortSwiglu short_swiglu(uint32_t g, uint32_t u) {
  const float low = approximate_swiglu(low_bf16(g), low_bf16(u)), high = approximate_swiglu(high_bf16(g), high_bf16(u));
  const bool clear = min(above_boundary(low), above_boundary(high)) > 2 * kSwigluError;
  return {pack_bf16(low, high), clear && is_moderate(g, u)};
}

/// y = silu(g) · u of kWords pairs, in place of g; bits equal exact_swiglu(). To be called by whole warps, with many
/// words at once: their latencies hide each other up to the one vote.
/// @param wanted whether this lane's are used: the others, which may hold anything, don't slow the warp down
template <int kWords>
__device__ __forceinline__ void swiglu(uint32_t (&g)[kWords], const uint32_t (&u)[kWords], bool wanted) {
  static_assert(kWords <= 32, "a bit for each");
  uint32_t y[kWords], unsure = 0;
#pragma unroll
  for (int i = 0; i < kWords; ++i) {
    const ShortSwiglu result = short_swiglu(g[i], u[i]);
    y[i] = result.y;
    unsure |= uint32_t(!result.sure) << i;
  }
  unsure = __reduce_or_sync(~0u, wanted ? unsure : 0);
  // The words stay in registers, and the code is there once.
#pragma unroll 1
  for (; unsure != 0; unsure &= unsure - 1) {
    const int at = __ffs(unsure) - 1;
    uint32_t gates = 0, ups = 0;
#pragma unroll
    for (int i = 0; i < kWords; ++i) {
      gates = i == at ? g[i] : gates;
      ups = i == at ? u[i] : ups;
    }
    const uint32_t exact = exact_swiglu(gates, ups);
#pragma unroll
    for (int i = 0; i < kWords; ++i) y[i] = i == at ? exact : y[i];
  }
#pragma unroll
  for (int i = 0; i < kWords; ++i) g[i] = y[i];
}

}  // namespace detinfer
