#include "engine/dummy_weights.h"

#include <algorithm>
#include <cmath>

#include "core/per_isa.h"
#include "core/thread_pool.h"

namespace detinfer {
namespace {

constexpr int64_t kGrainWords = 65536;

/// Elements 4·first … 4·last - 1.
void fill_words(uint64_t hash, int64_t first, int64_t last, float mean, float scale, bf16* out) {
  for (int64_t i = first; i < last; ++i) {
    const uint64_t word = mix64(hash + uint64_t(i));
    for (int j = 0; j < 4; ++j) out[4 * i + j] = dummy_value(uint32_t(word >> (16 * j)) & 0xFFFFu, mean, scale);
  }
}

class DummyWeights : public WeightSource {
 public:
  void check(const TensorSpec&) const override {}

  void read(ThreadPool& pool, const TensorSpec& spec, bf16* out) const override {
    const uint64_t hash = dummy_hash(spec.name);
    const float mean = float(spec.dummy_mean);
    const float scale = float(spec.dummy_deviation * std::sqrt(3.0) / 65535.0);
    const int64_t whole = spec.elements() / 4;
    pool.parallel_for(whole, kGrainWords, [=](int64_t begin, int64_t end) {
      run_per_isa<fill_words>(hash, begin, end, mean, scale, out);
    });
    bf16 rest[4];
    fill_words(hash + uint64_t(whole), 0, 1, mean, scale, rest);
    std::copy_n(rest, spec.elements() % 4, out + 4 * whole);
  }
};

}  // namespace

std::unique_ptr<WeightSource> make_dummy_weights() { return std::make_unique<DummyWeights>(); }

}  // namespace detinfer
