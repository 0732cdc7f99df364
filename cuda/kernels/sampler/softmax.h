// Softmax over the vocabulary: the largest x, then Σ fixed_mass(x - max) as a 64-bit integer in units of 2^-40, so that
// any parallel order gives the same bits; then the contract's own log of the sum.
#pragma once

#include <cstdint>

#include "core/numerics.h"

namespace detinfer {

class ThreadPool;

constexpr double kMassUnit = 9.094947017729282379150390625e-13;  // 2^-40

struct Softmax {
  float max = 0.0f;
  uint64_t total = 0;
  /// ln(total · 2^-40)
  double log_total = 0.0;

  /// log(softmax) of an element x; never -0, whichever zero x and max are.
  DETINFER_HD float logprob(float x) const { return float(double(x) - double(max) - log_total) + 0.0f; }
};

/// Bounds of a row; `finite` is false when an infinity or NaN is in it.
struct Range {
  float min = 0.0f;
  float max = 0.0f;
  bool finite = true;
};

/// An integer that orders like the float: -0 equals +0, a NaN lies beyond the infinities.
DETINFER_HD int32_t order_key(float x) {
  const int32_t bits = int32_t(float_bits(x + 0.0f));
  return bits ^ ((bits >> 31) & 0x7FFFFFFF);
}

/// The readable reference. @param x [n], below +infinity, at least one above -infinity
Softmax softmax_reference(const float* x, int n);

/// Both functions split the row over `pool`, or run on the caller alone when it is null.
Range range_cpu(ThreadPool* pool, const float* x, int n);

/// The fast path. @param max the largest x @param weights [n], gets exp(x - max), or null
Softmax softmax_cpu(ThreadPool* pool, const float* x, int n, float max, float* weights);

}  // namespace detinfer
