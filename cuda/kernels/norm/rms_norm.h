// RMSNorm: y = bf16(w · bf16(x·r)), r = 1/sqrt(mean(x²) + eps). The squares are summed in groups of 8 consecutive
// elements by sequential fma from 0; the groups by the adjacent binary tree, padded with zeros to a power of two.
#pragma once

#include "core/numerics.h"

namespace detinfer {

class ThreadPool;

/// Longest row: bounds the partial sums kept on the stack.
constexpr int kMaxNormLength = 32768;

/// The readable reference. @param x, y [rows][n] @param weight [n]
void rms_norm_reference(const bf16* x, int rows, int n, const bf16* weight, float eps, bf16* y);

/// The fast path; y may be x.
void rms_norm_cpu(ThreadPool& pool, const bf16* x, int rows, int n, const bf16* weight, float eps, bf16* y);

/// residual = bf16(residual + delta), then y = rms_norm(residual): the bits of its two parts.
void add_rms_norm_cpu(ThreadPool& pool, bf16* residual, const bf16* delta, int rows, int n, const bf16* weight,
                      float eps, bf16* y);

}  // namespace detinfer
