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

/// So that no division by a temperature overflows.
DETINFER_HD float cut_logit(float logit) { return logit > 1e30f ? 1e30f : logit; }

/// @param count how often the token was output before, at least once
DETINFER_HD float penalised(float logit, float frequency, float presence, float repetition, int32_t count) {
  logit = logit - frequency * float(count);
  logit = logit - presence;
  return cut_logit(logit > 0.0f ? logit / repetition : logit * repetition);
}

DETINFER_HD float biased(float logit, float bias) { return cut_logit(logit + bias); }

/// @param x [n] logits, changed in place
inline void adjust_logits(const SampleArgs& args, int n, float* x) {
  const PenaltyArgs& penalties = args.penalties;
  for (int i = 0; i < penalties.count; ++i) {
    float& logit = x[penalties.ids[i]];
    logit = penalised(logit, penalties.frequency, penalties.presence, penalties.repetition, penalties.counts[i]);
  }
  for (int i = 0; i < args.bias_count; ++i) x[args.bias_ids[i]] = biased(x[args.bias_ids[i]], args.bias_values[i]);
  if (args.allowed) mask_logits(args.allowed, n, x);
}

/// Mass of the tokens that may precede a token kept by top-p.
DETINFER_HD uint64_t top_p_limit(double top_p, uint64_t total) {
  return top_p >= 1.0 ? ~uint64_t(0) : uint64_t(top_p * double(total));
}

/// Smallest mass of a token kept by min-p: a share of the best one's, whose x is the maximum.
inline uint64_t min_p_mass(double min_p) { return uint64_t(min_p * double(fixed_mass(0.0f))); }

}  // namespace detinfer
