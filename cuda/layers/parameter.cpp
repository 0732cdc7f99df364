#include "layers/parameter.h"

#include <cmath>

namespace detinfer {

TensorSpec linear_tensor(const std::string& name, int64_t n, int64_t k) {
  return {name, {n, k}, 0.0, 1.0 / std::sqrt(double(k))};
}

TensorSpec norm_tensor(const std::string& name, int n) { return {name, {n}, 1.0, 0.05}; }

}  // namespace detinfer
