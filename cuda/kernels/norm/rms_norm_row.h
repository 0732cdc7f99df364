// One row of the fast RMSNorm, for kernels that normalise on the way.
#pragma once

#include <cmath>

#include "kernels/norm/rms_norm.h"

namespace detinfer {

inline float sum_of_squares(const bf16* x, int n) {
  float partial[kMaxNormLength / 8];
  const int whole = n / 8;
  for (int g = 0; g < whole; ++g) {
    float sum = 0.0f;
    for (int i = 0; i < 8; ++i) {
      const float v = to_float(x[8 * g + i]);
      sum = fmaf(v, v, sum);
    }
    partial[g] = sum;
  }
  int groups = whole;
  if (n % 8 != 0) {
    float sum = 0.0f;
    for (int i = 8 * whole; i < n; ++i) sum = fmaf(to_float(x[i]), to_float(x[i]), sum);
    partial[groups++] = sum;
  }
  // A group without a partner would be added to a zero of the padding, which changes nothing.
  for (; groups > 1; groups = (groups + 1) / 2) {
    for (int g = 0; g < groups / 2; ++g) partial[g] = partial[2 * g] + partial[2 * g + 1];
    if (groups % 2 != 0) partial[groups / 2] = partial[groups - 1];
  }
  return partial[0];
}

inline void rms_norm_row(const bf16* x, int n, const bf16* weight, float eps, bf16* y) {
  const float r = 1.0f / std::sqrt(sum_of_squares(x, n) / float(n) + eps);
  for (int i = 0; i < n; ++i) y[i] = to_bf16(to_float(weight[i]) * to_float(to_bf16(to_float(x[i]) * r)));
}

}  // namespace detinfer
