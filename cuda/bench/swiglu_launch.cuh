// SwiGLU in a launch of its own, as a library's product of gates and ups needs one behind it: what a benchmark compares
// with SwiGLU in the product's end.
#pragma once

#include "core/launch.cuh"
#include "kernels/mlp/swiglu.cuh"
#include "kernels/mlp/swiglu.h"

namespace detinfer {

/// A thread makes 8 elements; whole warps take part.
static __global__ void swiglu_of_product(const uint4* product, int64_t groups, uint4* y) {
  static_assert(kSwigluGroup == kVector, "a group is a vector");
  wait_for_inputs();
  const int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
  const bool exists = i < groups;
  const uint4 gate = exists ? product[2 * i] : uint4(), up = exists ? product[2 * i + 1] : uint4();
  uint32_t gates[4] = {gate.x, gate.y, gate.z, gate.w};
  const uint32_t ups[4] = {up.x, up.y, up.z, up.w};
  swiglu(gates, ups, exists);
  if (exists) y[i] = make_uint4(gates[0], gates[1], gates[2], gates[3]);
}

/// @param product [rows, n], gates and ups in turns of groups of 8 @param y [rows, n / 2]
inline void launch_swiglu(const bf16* product, int64_t rows, int n, bf16* y, cudaStream_t stream) {
  constexpr int kThreads = 256;
  const int64_t groups = rows * n / (2 * kSwigluGroup);
  launch(swiglu_of_product, dim3(unsigned((groups + kThreads - 1) / kThreads)), dim3(kThreads), 0, stream,
         reinterpret_cast<const uint4*>(product), groups, reinterpret_cast<uint4*>(y));
}

}  // namespace detinfer
