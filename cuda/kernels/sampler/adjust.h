// Penalties, biases and the mask of allowed tokens, shared by the reference and the fast path: the first two touch few
// elements, the last only compares a word where all 32 tokens are allowed.
#pragma once

#include <limits>

#include "kernels/sampler/sampler.h"

namespace detinfer {

/// x[i] = -infinity for every token i that is not allowed.
inline void mask_logits(const uint32_t* allowed, int n, float* x) {
  for (int first = 0; first < n; first += 32) {
    const uint32_t word = allowed[first / 32];
    if (word == ~uint32_t(0)) continue;
    const int count = n - first < 32 ? n - first : 32;
    for (int i = 0; i < count; ++i) {
      if ((word >> i & 1) == 0) x[first + i] = -std::numeric_limits<float>::infinity();
    }
  }
}

/// @param x [n] logits, changed in place
inline void adjust_logits(const SampleArgs& args, int n, float* x) {
  constexpr float kLargest = 1e30f;  // so that no division by a temperature overflows
  const PenaltyArgs& penalties = args.penalties;
  for (int i = 0; i < penalties.count; ++i) {
    float& logit = x[penalties.ids[i]];
    logit = logit - penalties.frequency * float(penalties.counts[i]);
    logit = logit - penalties.presence;
    logit = logit > 0.0f ? logit / penalties.repetition : logit * penalties.repetition;
    logit = logit > kLargest ? kLargest : logit;
  }
  for (int i = 0; i < args.bias_count; ++i) {
    float& logit = x[args.bias_ids[i]];
    logit = logit + args.bias_values[i];
    logit = logit > kLargest ? kLargest : logit;
  }
  if (args.allowed) mask_logits(args.allowed, n, x);
}

/// Mass of the tokens that may precede a token kept by top-p.
inline uint64_t top_p_limit(double top_p, uint64_t total) {
  return top_p >= 1.0 ? ~uint64_t(0) : uint64_t(top_p * double(total));
}

/// Smallest mass of a token kept by min-p: a share of the best one's, whose x is the maximum.
inline uint64_t min_p_mass(double min_p) { return uint64_t(min_p * double(fixed_mass(0.0f))); }

}  // namespace detinfer
