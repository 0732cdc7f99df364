#include <vector>

#include "kernels/linear/linear.h"
#include "kernels/mma16/mma16.h"

namespace detinfer {

void linear_reference(const bf16* x, int rows, const bf16* w, int n, int k, const bf16* bias, float* y) {
  const int padded = (k + kStepTerms - 1) / kStepTerms * kStepTerms;
  std::vector<bf16> a(padded, bf16{0}), b(padded, bf16{0});
  for (int row = 0; row < rows; ++row) {
    std::copy(x + int64_t(row) * k, x + int64_t(row + 1) * k, a.begin());
    for (int col = 0; col < n; ++col) {
      std::copy(w + int64_t(col) * k, w + int64_t(col + 1) * k, b.begin());
      float acc = 0.0f;
      for (int k0 = 0; k0 < padded; k0 += kStepTerms) acc = mma16(&a[k0], &b[k0], 1, acc);
      y[int64_t(row) * n + col] = bias ? acc + to_float(bias[col]) : acc;
    }
  }
}

}  // namespace detinfer
