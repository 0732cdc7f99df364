#include "kernels/sampler/order.h"

#include <algorithm>
#include <limits>

#include "core/per_isa.h"

namespace detinfer {
namespace {

constexpr int kScanBlock = 256;
constexpr int kBuckets = 4096;
/// Below max - 28 a token has no mass in units of 2^-40: no need to tell such tokens apart by bucket.
constexpr float kBucketRange = 32.0f;

int32_t largest_key(const float* x, int n) {
  int32_t largest = std::numeric_limits<int32_t>::min();
  for (int i = 0; i < n; ++i) largest = std::max(largest, order_key(x[i]));
  return largest;
}

bool ranked_before(const RankedToken& a, const RankedToken& b) { return a.before(b); }

/// Maps x to a bucket; a larger x never gets a later bucket, since every step is monotone.
struct Buckets {
  float max;
  float scale;

  explicit Buckets(Range range) : max(range.max) {
    const float width = std::min(range.max - range.min, kBucketRange);
    // Finite however small the width is: 0 · infinity would be no bucket.
    scale = width > 0.0f ? std::min(float(kBuckets - 1) / width, std::numeric_limits<float>::max()) : 0.0f;
  }
  int index(float x) const { return int(std::min((max - x) * scale, float(kBuckets - 1))); }
};

}  // namespace

void top_tokens(const float* x, int n, int count, std::vector<RankedToken>& out) {
  out.clear();
  if (count <= 0) return;
  for (int first = 0; first < n; first += kScanBlock) {
    const int last = std::min(n, first + kScanBlock);
    const bool full = int(out.size()) == count;
    // A later token must be larger than the last of a full list: it loses a tie.
    if (full && run_per_isa<largest_key>(x + first, last - first) <= order_key(out.front().value)) continue;
    for (int id = first; id < last; ++id) {
      if (int(out.size()) == count) {
        if (!(x[id] > out.front().value)) continue;
        std::pop_heap(out.begin(), out.end(), ranked_before);
        out.pop_back();
      }
      out.push_back({x[id], id});
      std::push_heap(out.begin(), out.end(), ranked_before);
    }
  }
  std::sort_heap(out.begin(), out.end(), ranked_before);
}

RankedToken last_kept(const float* x, const float* weights, int n, Range range, int64_t top_k, uint64_t mass_limit) {
  struct Bucket {
    int64_t count = 0;
    uint64_t mass = 0;
  };
  static thread_local std::vector<Bucket> buckets;
  buckets.assign(kBuckets, Bucket{});
  const Buckets map(range);
  const auto mass_of = [weights](int id) { return uint64_t(weights[id] * 1099511627776.0f); };
  for (int id = 0; id < n; ++id) {
    Bucket& bucket = buckets[map.index(x[id])];
    ++bucket.count;
    bucket.mass += mass_of(id);
  }

  // Whole buckets are kept up to the one that holds the cut, or the first token after it; that one is put in order.
  int64_t rank = 0;
  uint64_t mass = 0;
  int cut_bucket = 0;
  int last_full = -1;
  for (; cut_bucket < kBuckets; ++cut_bucket) {
    const Bucket& bucket = buckets[cut_bucket];
    if (bucket.count == 0) continue;
    if (rank + bucket.count > top_k || mass + bucket.mass > mass_limit) break;
    rank += bucket.count;
    mass += bucket.mass;
    last_full = cut_bucket;
  }
  static thread_local std::vector<RankedToken> tokens;
  const auto order_bucket = [&](int wanted) {
    tokens.clear();
    for (int id = 0; id < n; ++id) {
      if (map.index(x[id]) == wanted) tokens.push_back({x[id], id});
    }
    std::sort(tokens.begin(), tokens.end(), ranked_before);
  };
  if (cut_bucket < kBuckets) {
    order_bucket(cut_bucket);
    size_t kept = 0;
    while (kept < tokens.size() && rank < top_k && mass <= mass_limit) {
      mass += mass_of(tokens[kept].id);
      ++rank;
      ++kept;
    }
    if (kept > 0) return tokens[kept - 1];
  }
  order_bucket(last_full);
  return tokens.back();
}

}  // namespace detinfer
