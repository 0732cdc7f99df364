// linear on a Hopper GPU: TMA brings tiles of x and W to shared memory, wgmma runs the k16 chain of every output in order.
// Tile shapes, operand order and pipelines are chosen by the number of rows; the bits are those of linear_reference.
#pragma once

#include "core/numerics.h"

typedef struct CUstream_st* cudaStream_t;

namespace detinfer {

/// A weight matrix in the device's memory.
struct DeviceMatrix {
  /// [n][k] row-major, aligned to 16 bytes.
  const bf16* data = nullptr;
  int n = 0;
  /// A multiple of 8; a last step of fewer than 16 is padded with zeros on the way.
  int k = 0;
};

/// What becomes of a product's outputs: f32, or rounded to bf16, or then SwiGLU, of outputs that are gates and ups in
/// groups (kernels/mlp/swiglu.h).
enum class LinearOutput { kF32, kBf16, kSwiglu };

/// @param x [rows][k], aligned to 16 bytes @param bias [n] or null @param y [rows][n], not x
/// @param held multiprocessors that the launch before keeps to its end: the schedule does without them, since a block
/// that starts there has loaded nothing ahead
/// @throws Error kEngineFailed
void linear_cuda(const bf16* x, int rows, const DeviceMatrix& w, const bf16* bias, bf16* y, cudaStream_t stream,
                 int held = 0);
/// The same before rounding to bf16.
void linear_cuda(const bf16* x, int rows, const DeviceMatrix& w, const bf16* bias, float* y, cudaStream_t stream);
/// SwiGLU of a linear, without a pass of its own. @param w rows of gate and up in groups; n a multiple of 16
/// @param y [rows][n / 2], aligned to 16 bytes @throws Error kUnsupported for another n, kEngineFailed
void linear_swiglu_cuda(const bf16* x, int rows, const DeviceMatrix& w, bf16* y, cudaStream_t stream);

}  // namespace detinfer
