// The scalar rules of attention (docs/numerics.md) as device code: weights, factors, merges. The host's are in
// kernels/attention/{merge,weight}.h.
#pragma once

#include "core/bf16_vector.cuh"
#include "core/numerics.h"
#include "kernels/attention/attention_cuda.h"

namespace detinfer::attention {

constexpr float kLazyMargin = 8.0f;
constexpr float kMinusInfinity = -__builtin_huge_valf();

/// 2^x before its rounding to bf16, which makes it w(x) for every x in [-infinity, 9): checked exhaustively on sm_90.
__device__ __forceinline__ float weight(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/// The lazy maximum. -infinity needs no case of its own: whatever is above it is above it plus the margin.
__device__ __forceinline__ float next_max(float running_max, float block_max) {
  return block_max > running_max + kLazyMargin ? block_max : running_max;
}

/// The factor between what was summed against maximum `from` and what is summed against `to`.
__device__ __forceinline__ float rescale(float from, float to) { return exp2_f32(from == to ? 0.0f : from - to); }

}  // namespace detinfer::attention
