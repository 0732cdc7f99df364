// The order of tokens: larger x first, equal ones by the lower id. What top-k and top-p keep is a prefix of it, so a
// filter is a cut: the last token kept.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/sampler/softmax.h"

namespace detinfer {

struct RankedToken {
  float value;
  int32_t id;

  bool before(const RankedToken& other) const {
    return value > other.value || (value == other.value && id < other.id);
  }
};

/// The first min(count, n) tokens in order. @param out the result, resized
void top_tokens(const float* x, int n, int count, std::vector<RankedToken>& out);

/// The last token kept by top-k and top-p: one at rank r is kept iff r < top_k and the mass of the tokens before it is
/// at most `mass_limit`.
/// @param weights [n] exp(x - max) @param range bounds of x @param top_k at least 1
RankedToken last_kept(const float* x, const float* weights, int n, Range range, int64_t top_k, uint64_t mass_limit);

}  // namespace detinfer
