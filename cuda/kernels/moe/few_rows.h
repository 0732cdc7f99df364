// An expert layer for few rows, of which hardly two take the same expert: what counts is that nothing stands between
// one stream of weights and the next. So the product of gate and up also chooses the experts and computes SwiGLU, that of
// down also combines, and no tables of entries are made. Where more rows share experts, moe_cuda.h is faster.
#pragma once

#include "kernels/linear/linear_cuda.h"
#include "kernels/moe/moe.h"

namespace detinfer {

/// Whether the functions below are the fast way.
constexpr bool are_few_rows(int rows, const RouteSpec& spec) {
  return rows == 1 || rows * spec.top_k * 4 <= spec.experts;
}

/// y[row][rank] = SwiGLU of gate and up of the expert that the row's logits rank there.
/// @param x [rows][k] @param logits [rows][experts] @param w [experts · 2n][k], rows in groups (kernels/mlp/swiglu.h)
/// @param y [rows][top_k][n] @throws Error as check_route_spec(), kEngineFailed
void few_rows_gate_up_cuda(const bf16* x, const float* logits, int rows, const RouteSpec& spec, const DeviceMatrix& w,
                           bf16* y, cudaStream_t stream);

/// The combination of the outputs of down. To follow few_rows_gate_up_cuda() at once: it reads logits early.
/// @param x [rows][top_k][k] @param w [experts · n][k] @param out [rows][n]
/// @throws Error as check_route_spec(), kEngineFailed
void few_rows_down_cuda(const bf16* x, const float* logits, int rows, const RouteSpec& spec, const DeviceMatrix& w,
                        bf16* out, cudaStream_t stream);

}  // namespace detinfer
