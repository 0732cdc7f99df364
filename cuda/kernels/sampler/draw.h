// The draw: argmax of log-probability plus Gumbel noise keyed by (seed, position, token id), ties to the lower id.
#pragma once

#include <cstdint>

#include "kernels/sampler/order.h"
#include "kernels/sampler/softmax.h"

namespace detinfer {

class ThreadPool;

struct NoiseKey {
  uint32_t seed_low = 0;
  uint32_t seed_high = 0;
  uint32_t position = 0;
};

/// Which tokens may be drawn: those in order up to `last` whose mass is at least `min_mass`.
struct DrawFilter {
  RankedToken last;
  uint64_t min_mass;
};

/// The fast path. @param x [n] scaled logits @param filter null: every token may be drawn
int draw_cpu(ThreadPool* pool, const float* x, int n, const Softmax& softmax, const NoiseKey& key,
             const DrawFilter* filter);

/// The first of the largest elements.
int argmax_cpu(ThreadPool* pool, const float* x, int n);

}  // namespace detinfer
