// Where a model's weights come from.
#pragma once

#include "layers/parameter.h"

namespace detinfer {

class ThreadPool;

class WeightSource {
 public:
  virtual ~WeightSource() = default;

  /// Whether the tensor can be read: it is there, in bfloat16, in the right shape.
  /// @throws Error kInvalidWeights naming file and tensor
  virtual void check(const TensorSpec& spec) const = 0;

  /// Writes the tensor, row-major. @param out [spec.elements()] in host memory
  virtual void read(ThreadPool& pool, const TensorSpec& spec, bf16* out) const = 0;
};

}  // namespace detinfer
