// SwiGLU on a GPU; bits equal swiglu_reference.
#pragma once

#include "core/numerics.h"

typedef struct CUstream_st* cudaStream_t;

namespace detinfer {

/// @param gate_up [rows][2n]: gates, then ups @param y [rows][n] @throws Error kEngineFailed
void swiglu_cuda(const bf16* gate_up, int rows, int n, bf16* y, cudaStream_t stream);

}  // namespace detinfer
