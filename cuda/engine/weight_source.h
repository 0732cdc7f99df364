// Where a model's weights come from.
#pragma once

#include <functional>

#include "layers/parameter.h"

namespace detinfer {

class ThreadPool;

/// Where a tensor goes in host memory: runs of so many elements, `stride` elements from one's start to the next's.
struct Destination {
  bf16* start;
  int64_t run;
  int64_t stride;
};

/// Calls body(begin, end, out) for ranges of elements that cover a tensor, on several threads. Ranges begin at
/// multiples of 4 where runs do.
void for_each_range(ThreadPool& pool, int64_t elements, const Destination& to,
                    const std::function<void(int64_t, int64_t, bf16*)>& body);

class WeightSource {
 public:
  virtual ~WeightSource() = default;

  /// Whether the tensor can be read: it is there, in bfloat16, in the right shape.
  /// @throws Error kInvalidWeights naming file and tensor
  virtual void check(const TensorSpec& spec) const = 0;

  /// Writes the tensor, row-major. @throws Error kInvalidWeights for a weight that is infinite or not a number
  virtual void read(ThreadPool& pool, const TensorSpec& spec, const Destination& to) const = 0;
};

}  // namespace detinfer
