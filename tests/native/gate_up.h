// Weights of gates and ups as a layer holds them.
#pragma once

#include <algorithm>
#include <vector>

#include "kernels/mlp/swiglu.h"

namespace detinfer::testing {

/// Rows of gates and ups in groups. @param w [matrices][2 · n][k], the gates of a matrix above its ups
inline std::vector<bf16> in_groups(const std::vector<bf16>& w, int matrices, int n, int k) {
  std::vector<bf16> result(w.size());
  for (int row = 0; row < matrices * 2 * n; ++row) {
    const int at = row % (2 * n), up = at / n, i = at % n;
    const int to = row - at + i / kSwigluGroup * 2 * kSwigluGroup + up * kSwigluGroup + i % kSwigluGroup;
    std::copy_n(w.begin() + int64_t(row) * k, k, result.begin() + int64_t(to) * k);
  }
  return result;
}

}  // namespace detinfer::testing
