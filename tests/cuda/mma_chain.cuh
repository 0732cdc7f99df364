// linear spelled out on the device: one warp for 16 rows by 8 outputs, mma.sync in the order of k. It is slow, but quick
// beside a CPU; a test compares it with linear_reference.
#pragma once

#include "core/numerics.h"
#include "core/ptx.cuh"

namespace detinfer::testing {

__device__ __forceinline__ uint32_t pair_at(const bf16* matrix, int row, int k, int column) {
  return column < k ? *reinterpret_cast<const uint32_t*>(matrix + size_t(row) * k + column) : 0;
}

/// @param k a multiple of 8 @param y [rows][n] before rounding to bf16
static __global__ void mma_chain(const bf16* x, int rows, const bf16* w, int n, int k, const bf16* bias, float* y) {
  const int lane = threadIdx.x % 32, columns = (n + 7) / 8;
  const int64_t piece = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) / 32;
  const int row = int(piece / columns) * 16, column = int(piece % columns) * 8;
  if (row >= rows) return;
  // Rows past the end repeat the last one.
  const int low = min(row + lane / 4, rows - 1), high = min(row + lane / 4 + 8, rows - 1);
  const int output = min(column + lane / 4, n - 1);
  float acc[4] = {0.0f, 0.0f, 0.0f, 0.0f};
  for (int k0 = 0; k0 < k; k0 += 16) {
    const int at = k0 + lane % 4 * 2;
    const uint32_t a[4] = {pair_at(x, low, k, at), pair_at(x, high, k, at), pair_at(x, low, k, at + 8),
                           pair_at(x, high, k, at + 8)};
    mma_m16n8k16(acc, a, pair_at(w, output, k, at), pair_at(w, output, k, at + 8));
  }
  for (int i = 0; i < 4; ++i) {
    const int r = row + lane / 4 + i / 2 * 8, c = column + lane % 4 * 2 + i % 2;
    if (r < rows && c < n) y[size_t(r) * n + c] = bias ? acc[i] + to_float(bias[c]) : acc[i];
  }
}

inline void launch_mma_chain(const bf16* x, int rows, const bf16* w, int n, int k, const bf16* bias, float* y,
                             cudaStream_t stream) {
  const int64_t warps = int64_t((rows + 15) / 16) * ((n + 7) / 8);
  mma_chain<<<unsigned((warps + 7) / 8), 256, 0, stream>>>(x, rows, w, n, k, bias, y);
}

}  // namespace detinfer::testing
