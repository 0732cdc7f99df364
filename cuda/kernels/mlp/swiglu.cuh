// SwiGLU of registers, for the end of a product of gates and ups.
#pragma once

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

/// How far approximate_swiglu() may be from the contract's f32, in units of its last place, where the gate is at least -8
/// and nothing underflows: beside a rounding boundary of bf16 by no more than this, the exact way is taken. Tested for
/// every gate and every up.
constexpr uint32_t kSwigluError = 8;

/// Two 16-bit words of the same bits.
__host__ __device__ constexpr uint32_t twice(uint32_t bits) { return bits * 0x10001u; }

/// Two elements in a short way, and whether their bits are those of exact_swiglu() for sure.
struct ShortSwiglu {
  uint32_t y;
  bool sure;
};

__device__ __forceinline__ ShortSwiglu short_swiglu(uint32_t g, uint32_t u) {
  constexpr uint32_t kMinus8 = 0xC100, kTwoToMinus100 = 0x0D80;
  const float low = approximate_swiglu(low_bf16(g), low_bf16(u)), high = approximate_swiglu(high_bf16(g), high_bf16(u));
  const uint32_t y = pack_bf16(low, high);
  // Both halves at once. How far an f32 lies above the lowest that is too near to a boundary, modulo their distance; a
  // carry from the lower half moves the upper one by 1.
  const uint32_t above = __byte_perm(float_bits(low), float_bits(high), 0x5410) + twice(0x8000u + kSwigluError);
  constexpr uint32_t kClear = twice(2 * kSwigluError + 2);
  const bool clear = __vminu2(above, kClear) == kClear;
  // exp(-g), whose error grows with it, is not large, and nothing underflows.
  const bool moderate = __vminu2(g, twice(kMinus8)) == g;
  const bool normal = __vminu2(y & twice(0x7FFF), twice(kTwoToMinus100)) == twice(kTwoToMinus100);
  return {y, bool(clear & moderate & normal)};
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
