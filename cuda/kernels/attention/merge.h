// The f32 rules of attention between its chains: the lazy maximum and the merge of splits.
#pragma once

#include <cmath>

#include "core/numerics.h"

namespace detinfer {

/// By how much (in powers of two) a block's maximum must exceed the running one before accumulators are rescaled.
constexpr float kLazyMargin = 8.0f;

/// The maximum that a row's weights are taken against after a block whose own maximum is block_max.
inline float next_max(float running_max, float block_max) {
  return running_max == -INFINITY || block_max > running_max + kLazyMargin ? block_max : running_max;
}

/// a - b, and 0 for two equal infinities.
inline float difference(float a, float b) { return a == b ? 0.0f : a - b; }

/// Merges a split (m, l, O) into the running total, which starts as (-infinity, 0, 0).
inline void merge_split(float& total_max, float& total_sum, float* total, float split_max, float split_sum,
                        const float* split, int head_dim) {
  const float merged_max = split_max > total_max ? split_max : total_max;
  const float total_weight = exp2_f32(difference(total_max, merged_max));
  const float split_weight = exp2_f32(difference(split_max, merged_max));
  total_sum = fmaf(split_sum, split_weight, total_sum * total_weight);
  for (int d = 0; d < head_dim; ++d) total[d] = fmaf(split[d], split_weight, total[d] * total_weight);
  total_max = merged_max;
}

}  // namespace detinfer
