// Weights as layers declare them: by name and shape before anything is read, filled when the model is loaded.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernels/ops.h"

namespace detinfer {

/// A tensor of the checkpoint, and what dummy weights put in its place: uniform numbers around `dummy_mean`.
struct TensorSpec {
  std::string name;
  std::vector<int64_t> shape;
  double dummy_mean = 0.0;
  double dummy_deviation = 0.0;

  int64_t elements() const {
    int64_t count = 1;
    for (int64_t size : shape) count *= size;
    return count;
  }
};

/// One matrix made of the rows of one or more tensors of equal width, so that one pass computes all their outputs.
/// Columns of a linear's output are independent: the bits don't change.
struct MatrixParameter {
  std::vector<TensorSpec> parts;
  /// 0: the parts lie one below the other. Else parts 2i and 2i + 1, of equally many rows, take turns in groups of so
  /// many.
  int group = 0;
  std::unique_ptr<Matrix> value;

  int64_t rows() const {
    int64_t rows = 0;
    for (const TensorSpec& part : parts) rows += part.shape[0];
    return rows;
  }
  /// The same, once check_parameters() has found that it is no larger than an int.
  int n() const { return int(rows()); }
  int k() const { return int(parts[0].shape[1]); }
};

/// A vector, such as the weight of a norm.
struct VectorParameter {
  TensorSpec spec;
  DeviceArray<bf16> value;
};

/// All parameters of a model, in the order in which they are loaded.
struct ParameterList {
  std::vector<MatrixParameter*> matrices;
  std::vector<VectorParameter*> vectors;

  template <class Visit>
  void for_each_tensor(const Visit& visit) const {
    for (const MatrixParameter* matrix : matrices) {
      for (const TensorSpec& part : matrix->parts) visit(part);
    }
    for (const VectorParameter* vector : vectors) visit(vector->spec);
  }
};

/// Weights of y = x·Wᵀ; dummy weights keep the variance of x.
TensorSpec linear_tensor(const std::string& name, int64_t n, int64_t k);
/// Weights of a norm of n elements; dummy weights are near 1.
TensorSpec norm_tensor(const std::string& name, int n);

}  // namespace detinfer
