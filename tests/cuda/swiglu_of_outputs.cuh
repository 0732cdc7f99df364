// SwiGLU of what a linear of gates and ups in groups put out, written down as the contract has it.
#pragma once

#include "kernels/mlp/swiglu.h"

namespace detinfer::testing {

/// @param outputs [2 · count] @param y [count]
static __global__ void swiglu_of_outputs(const bf16* outputs, int64_t count, bf16* y) {
  for (int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; i < count; i += int64_t(gridDim.x) * blockDim.x) {
    const bf16* const gate = outputs + i / kSwigluGroup * 2 * kSwigluGroup + i % kSwigluGroup;
    const float g = to_float(gate[0]), silu = g / (1.0f + exp_f32(-g));
    y[i] = to_bf16(silu * to_float(gate[kSwigluGroup]));
  }
}

}  // namespace detinfer::testing
