#include "engine/dummy_weights.h"

#include <algorithm>
#include <cmath>

#include "core/per_isa.h"
#include "core/thread_pool.h"

namespace detinfer {
namespace {

/// Elements 4·first … 4·last - 1.
void fill_words(uint64_t hash, int64_t first, int64_t last, float mean, float scale, bf16* out) {
  for (int64_t i = first; i < last; ++i, out += 4) {
    const uint64_t word = mix64(hash + uint64_t(i));
    for (int j = 0; j < 4; ++j) out[j] = dummy_value(uint32_t(word >> (16 * j)) & 0xFFFFu, mean, scale);
  }
}

class DummyWeights : public WeightSource {
 public:
  void check(const TensorSpec&) const override {}

  void read(ThreadPool& pool, const TensorSpec& spec, const Destination& to) const override {
    const uint64_t hash = dummy_hash(spec.name);
    const float mean = float(spec.dummy_mean);
    const float scale = float(spec.dummy_deviation * std::sqrt(3.0) / 65535.0);
    for_each_range(pool, spec.elements(), to, [=](int64_t begin, int64_t end, bf16* out) {
      run_per_isa<fill_words>(hash, begin / 4, end / 4, mean, scale, out);
      bf16 rest[4];
      fill_words(hash, end / 4, end / 4 + 1, mean, scale, rest);
      std::copy_n(rest, end % 4, out + (end / 4 * 4 - begin));
    });
  }
};

}  // namespace

std::unique_ptr<WeightSource> make_dummy_weights() { return std::make_unique<DummyWeights>(); }

}  // namespace detinfer
