// linear: y = x·Wᵀ (+ bias). For every output: acc = 0; for k0 = 0, 16, …, K-16: acc = mma16(acc, x[k0..], w[k0..]);
// then the bias is added in f32, and a bf16 result is rounded once. No split of K.
#pragma once

#include <cstdint>

#include "core/aligned.h"
#include "core/numerics.h"

namespace detinfer {

class ThreadPool;

/// A weight matrix [n][k] of bf16 in the layout of the CPU path: panels of 16 outputs, [n/16][k/2][16][2], padded
/// to n a multiple of 16 (by repeating the last output) and k a multiple of 16 (with zeros). In this order one 64-byte load holds two steps of k for
/// 16 outputs.
struct PackedMatrix {
  int n = 0;
  int k = 0;
  /// Largest exponent field of any weight, 255 if there is an infinity or NaN: what the fast path may do depends on it.
  int max_exponent = 0;
  AlignedBuffer<bf16> data;

  int panels() const { return (n + 15) / 16; }
  int padded_k() const { return (k + 15) / 16 * 16; }
  int64_t bytes() const { return int64_t(panels()) * 16 * padded_k() * 2; }
};

/// Packs row-major weights [n][k].
PackedMatrix pack_matrix(ThreadPool& pool, const bf16* weights, int n, int k);

/// The readable reference. @param x [rows][k] @param w [n][k] row-major @param bias [n] or null @param y [rows][n] f32,
/// before rounding to bf16.
void linear_reference(const bf16* x, int rows, const bf16* w, int n, int k, const bf16* bias, float* y);

/// The fast path; bits equal linear_reference. @param x [rows][k] @param y [rows][n]
void linear_cpu(ThreadPool& pool, const bf16* x, int rows, const PackedMatrix& w, const bf16* bias, float* y);
void linear_cpu(ThreadPool& pool, const bf16* x, int rows, const PackedMatrix& w, const bf16* bias, bf16* y);

}  // namespace detinfer
