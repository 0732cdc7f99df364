// linear: y = x·Wᵀ (+ bias). For every output: acc = 0; for k0 = 0, 16, …, K-16: acc = mma16(acc, x[k0..], w[k0..]);
// then the bias is added in f32, and a bf16 result is rounded once. No split of K.
#pragma once

#include <cstdint>

#include "core/aligned.h"
#include "core/numerics.h"

namespace detinfer {

class ThreadPool;

/// Outputs per panel of a PackedMatrix: four chains of 16 lanes, which hide each other's latency.
constexpr int kPanelColumns = 64;

/// A weight matrix [n][k] of bf16 in the layout of the CPU path: panels of 64 outputs, [n/64][k/2][64][2], padded to n a
/// multiple of 64 (by repeating the last output) and k a multiple of 16 (with zeros). A thread reads a panel from end to
/// end, and every 64-byte load holds two consecutive k of 16 outputs.
struct PackedMatrix {
  int n = 0;
  int k = 0;
  /// Largest exponent field of any weight, 255 if there is an infinity or NaN: what the fast path may do depends on it.
  int max_exponent = 0;
  AlignedBuffer<bf16> data;

  int panels() const { return (n + kPanelColumns - 1) / kPanelColumns; }
  /// Where weight [row][column] lies in data.
  int64_t offset(int row, int column) const {
    const int64_t panel = int64_t(row / kPanelColumns) * kPanelColumns * padded_k();
    return panel + (column / 2) * 2 * kPanelColumns + row % kPanelColumns * 2 + column % 2;
  }
  int padded_k() const { return (k + 15) / 16 * 16; }
  int64_t bytes() const { return int64_t(panels()) * kPanelColumns * padded_k() * 2; }
};

/// Packs row-major weights [n][k].
PackedMatrix pack_matrix(ThreadPool& pool, const bf16* weights, int n, int k);

/// The readable reference. @param x [rows][k] @param w [n][k] row-major @param bias [n] or null @param y [rows][n] f32,
/// before rounding to bf16.
void linear_reference(const bf16* x, int rows, const bf16* w, int n, int k, const bf16* bias, float* y);

/// The fast path; bits equal linear_reference. @param x [rows][k] @param y [rows][n]
void linear_cpu(ThreadPool& pool, const bf16* x, int rows, const PackedMatrix& w, const bf16* bias, float* y);
void linear_cpu(ThreadPool& pool, const bf16* x, int rows, const PackedMatrix& w, const bf16* bias, bf16* y);
/// SwiGLU of a linear, a panel at a time. @param w rows of gate and up in groups (kernels/mlp/swiglu.h)
/// @param y [rows][w.n / 2]
void linear_swiglu_cpu(ThreadPool& pool, const bf16* x, int rows, const PackedMatrix& w, bf16* y);

}  // namespace detinfer
