#include "kernels/sampler/draw.h"

#include <algorithm>
#include <limits>

#include "core/per_isa.h"
#include "kernels/sampler/chunks.h"

namespace detinfer {
namespace {

constexpr int kScanBlock = 256;
constexpr float kLn2 = 0.69314718f;
/// Far above the rounding errors of the bound below.
constexpr float kSlack = 1e-3f;

struct Candidate {
  double score = -std::numeric_limits<double>::infinity();
  int id = std::numeric_limits<int>::max();

  bool loses_to(const Candidate& other) const {
    return other.score > score || (other.score == score && other.id < id);
  }
};

/// An upper bound of (x - max) + noise. With c = 2^32 - 1 - hash: noise = -ln(-ln u) <= -ln(1 - u) =
/// 32·ln 2 - ln(c + 1/2), and for any y, log2(y) is at least its own bits read as exponent + fraction.
float score_bound(float x, float max, const NoiseKey& key, uint32_t id) {
  const uint32_t c = ~murmur3_words(key.seed_low, key.seed_high, key.position, id);
  const float y = float(int32_t(c >> 1)) + 0.25f;  // at most (c + 1/2) / 2
  const float log2_bound = float(int32_t(float_bits(y))) * 1.1920929e-7f - 127.0f;
  return (x - max) + (31.0f - log2_bound) * kLn2;
}

int32_t largest_bound(const float* x, int first, int count, float max, const NoiseKey* key) {
  const NoiseKey k = *key;
  int32_t largest = std::numeric_limits<int32_t>::min();
  for (int i = 0; i < count; ++i) {
    largest = std::max(largest, order_key(score_bound(x[i], max, k, uint32_t(first + i))));
  }
  return largest;
}

struct Draw {
  const float* x;
  const Softmax& softmax;
  const NoiseKey& key;
  const DrawFilter* filter;

  bool allowed(int id) const {
    if (!filter) return true;
    const RankedToken token{x[id], id};
    return !filter->last.before(token) && fixed_mass(x[id] - softmax.max) >= filter->min_mass;
  }

  Candidate candidate(int id) const {
    const double noise = gumbel_noise(key.seed_low, key.seed_high, key.position, uint32_t(id));
    return {double(softmax.logprob(x[id])) + noise, id};
  }

  /// The smallest score_bound with which a token could still match the best so far.
  float threshold(const Candidate& best) const { return float(best.score + softmax.log_total) - kSlack; }

  Candidate best_of(int begin, int end, Candidate best) const {
    for (int first = begin; first < end; first += kScanBlock) {
      const int last = std::min(end, first + kScanBlock);
      float needed = threshold(best);
      if (run_per_isa<largest_bound>(x + first, first, last - first, softmax.max, &key) < order_key(needed)) continue;
      for (int id = first; id < last; ++id) {
        if (score_bound(x[id], softmax.max, key, uint32_t(id)) < needed || !allowed(id)) continue;
        const Candidate next = candidate(id);
        if (!best.loses_to(next)) continue;
        best = next;
        needed = threshold(best);
      }
    }
    return best;
  }
};

int first_of(const float* x, int n, float value) {
  return int(std::find(x, x + n, value) - x);
}

}  // namespace

int argmax_cpu(ThreadPool* pool, const float* x, int n) { return first_of(x, n, range_cpu(pool, x, n).max); }

int draw_cpu(ThreadPool* pool, const float* x, int n, const Softmax& softmax, const NoiseKey& key,
             const DrawFilter* filter) {
  const Draw draw{x, softmax, key, filter};
  // The likeliest token is always allowed and sets a bar that few tokens pass.
  const Candidate start = draw.candidate(first_of(x, n, softmax.max));
  const auto chunks = for_chunks<Candidate>(pool, n, [&](int begin, int end) {
    return draw.best_of(begin, end, start);
  });
  Candidate best = start;
  for (int i = 0; i < chunks.count; ++i) {
    if (best.loses_to(chunks.values[i])) best = chunks.values[i];
  }
  return best.id;
}

}  // namespace detinfer
