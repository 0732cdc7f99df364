#include "kernels/sampler/softmax.h"

#include <algorithm>
#include <limits>

#include "core/per_isa.h"
#include "kernels/sampler/chunks.h"

namespace detinfer {
namespace {

struct KeyRange {
  int32_t min = std::numeric_limits<int32_t>::max();
  int32_t max = std::numeric_limits<int32_t>::min();
};

float from_order_key(int32_t key) { return bits_float(uint32_t(key ^ ((key >> 31) & 0x7FFFFFFF))); }

KeyRange key_range(const float* x, int n) {
  KeyRange range;
  for (int i = 0; i < n; ++i) {
    const int32_t key = order_key(x[i]);
    range.min = std::min(range.min, key);
    range.max = std::max(range.max, key);
  }
  return range;
}

/// So many masses fit in 32 bits when each is cut into a high and a low part of 20 bits.
constexpr int kMassBlock = 2048;

uint64_t sum_masses(const float* x, int n, float max, float* weights) {
  float buffer[kMassBlock];
  uint64_t total = 0;
  for (int first = 0; first < n; first += kMassBlock) {
    const int count = std::min(kMassBlock, n - first);
    float* w = weights ? weights + first : buffer;
    for (int i = 0; i < count; ++i) w[i] = exp_f32(x[first + i] - max);
    // uint64_t(w · 2^40) in two exact parts, since most instruction sets only convert to 32 bits.
    uint32_t high_sum = 0, low_sum = 0;
    for (int i = 0; i < count; ++i) {
      const float scaled = w[i] * 1048576.0f;
      const int32_t high = int32_t(scaled);
      const int32_t low = int32_t((scaled - float(high)) * 1048576.0f);
      high_sum += uint32_t(high);
      low_sum += uint32_t(low);
    }
    total += (uint64_t(high_sum) << 20) + low_sum;
  }
  return total;
}

}  // namespace

Softmax softmax_reference(const float* x, int n) {
  Softmax result;
  result.max = *std::max_element(x, x + n);
  for (int i = 0; i < n; ++i) result.total += fixed_mass(x[i] - result.max);
  result.log_total = log_f64(double(result.total) * kMassUnit);
  return result;
}

Range range_cpu(ThreadPool* pool, const float* x, int n) {
  const auto chunks = for_chunks<KeyRange>(pool, n, [x](int begin, int end) {
    return run_per_isa<key_range>(x + begin, end - begin);
  });
  KeyRange all;
  for (int i = 0; i < chunks.count; ++i) {
    all.min = std::min(all.min, chunks.values[i].min);
    all.max = std::max(all.max, chunks.values[i].max);
  }
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  return {from_order_key(all.min), from_order_key(all.max),
          all.min > order_key(-kInfinity) && all.max < order_key(kInfinity)};
}

Softmax softmax_cpu(ThreadPool* pool, const float* x, int n, float max, float* weights) {
  const auto chunks = for_chunks<uint64_t>(pool, n, [=](int begin, int end) {
    return run_per_isa<sum_masses>(x + begin, end - begin, max, weights ? weights + begin : nullptr);
  });
  Softmax result;
  result.max = max;
  for (int i = 0; i < chunks.count; ++i) result.total += chunks.values[i];
  result.log_total = log_f64(double(result.total) * kMassUnit);
  return result;
}

}  // namespace detinfer
