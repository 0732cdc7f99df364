// RMSNorm on a GPU; bits equal rms_norm_reference.
#pragma once

#include "kernels/norm/rms_norm.h"

typedef struct CUstream_st* cudaStream_t;

namespace detinfer {

/// @param x, y [rows][n]; y may be x @param weight [n] @throws Error kEngineFailed
void rms_norm_cuda(const bf16* x, int rows, int n, const bf16* weight, float eps, bf16* y, cudaStream_t stream);

/// residual = bf16(residual + delta), then y = rms_norm(residual).
void add_rms_norm_cuda(bf16* residual, const bf16* delta, int rows, int n, const bf16* weight, float eps, bf16* y,
                       cudaStream_t stream);

}  // namespace detinfer
