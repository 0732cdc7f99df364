#include <cmath>
#include <vector>

#include "kernels/norm/rms_norm.h"

namespace detinfer {

void rms_norm_reference(const bf16* x, int rows, int n, const bf16* weight, float eps, bf16* y) {
  size_t groups = 1;
  while (groups * 8 < size_t(n)) groups *= 2;
  for (int row = 0; row < rows; ++row, x += n, y += n) {
    std::vector<float> sums(groups, 0.0f);
    for (int i = 0; i < n; ++i) sums[i / 8] = std::fma(to_float(x[i]), to_float(x[i]), sums[i / 8]);
    while (sums.size() > 1) {
      for (size_t i = 0; i < sums.size() / 2; ++i) sums[i] = sums[2 * i] + sums[2 * i + 1];
      sums.resize(sums.size() / 2);
    }
    const float r = 1.0f / std::sqrt(sums[0] / float(n) + eps);
    for (int i = 0; i < n; ++i) {
      const bf16 normalised = to_bf16(to_float(x[i]) * r);
      y[i] = to_bf16(to_float(weight[i]) * to_float(normalised));
    }
  }
}

}  // namespace detinfer
