// The mixture of experts on a Hopper GPU: the bits of the references in moe.h. How many rows an expert has is known on
// the device alone, so that the launches can be recorded.
#pragma once

#include "kernels/linear/linear_cuda.h"
#include "kernels/moe/moe.h"

namespace detinfer {

/// A whole layer. @param x aligned to 16 bytes @param gate_up of each expert, rows of gate and up in groups
/// (kernels/mlp/swiglu.h) @param out [rows][hidden] @throws Error as its parts below
void experts_cuda(const bf16* x, int rows, const RouteSpec& spec, const DeviceMatrix& router,
                  const DeviceMatrix& gate_up, const DeviceMatrix& down, const ExpertWork& work, bf16* out,
                  cudaStream_t stream);

/// The kernels behind it may read the routes before they wait for their inputs (core/launch.cuh).
/// @throws Error as check_route_spec(), kEngineFailed
void route_experts_cuda(const float* logits, int rows, const RouteSpec& spec, const ExpertRoutes& routes,
                        cudaStream_t stream);

/// @throws Error kUnsupported unless the products below can have n outputs: a multiple of 8
void check_expert_outputs(int n);

/// @param x aligned to 16 bytes @param routes of a route_experts_cuda() that went before in the stream
/// @param w [experts · n][k] @throws Error as check_expert_outputs(), kEngineFailed
void expert_linear_cuda(const bf16* x, int rows, const RouteSpec& spec, const ExpertRoutes& routes, bool gather,
                        const DeviceMatrix& w, bf16* y, cudaStream_t stream);

/// SwiGLU of such a linear of gathered rows, without a pass of its own. @param w of each expert, rows of gate and up in
/// groups (kernels/mlp/swiglu.h) @param y [rows · top_k][n / 2] @throws Error as check_expert_outputs(), kEngineFailed
void expert_linear_swiglu_cuda(const bf16* x, int rows, const RouteSpec& spec, const ExpertRoutes& routes,
                               const DeviceMatrix& w, bf16* y, cudaStream_t stream);

/// @param y aligned to 16 bytes @param routes as for expert_linear_cuda()
/// @throws Error as check_expert_outputs(), kEngineFailed
void combine_experts_cuda(const bf16* y, int rows, int n, const RouteSpec& spec, const ExpertRoutes& routes, bf16* out,
                          cudaStream_t stream);

}  // namespace detinfer
