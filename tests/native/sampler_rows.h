// Rows for the sampler and requests of all kinds, for the tests of its paths.
#pragma once

#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "kernels/sampler/sampler.h"
#include "tests/native/operands.h"

namespace detinfer::testing {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

inline std::vector<float> draw_logits(int n, float deviation, bool ties, std::mt19937_64& random) {
  std::normal_distribution<float> normal(0.0f, deviation);
  std::vector<float> logits(n);
  for (float& x : logits) x = ties ? std::round(normal(random)) : normal(random);
  return logits;
}

/// Buffers of a request and the request that points to them.
struct Row {
  RowRequest request;
  std::vector<float> top_logprobs, id_logprobs;
  std::vector<int32_t> top_ids;

  Row(const RowRequest& wanted) : request(wanted), top_logprobs(wanted.top), id_logprobs(wanted.token_id_count),
                                  top_ids(wanted.top) {
    request.top_logprobs = top_logprobs.data();
    request.top_ids = top_ids.data();
    request.token_id_logprobs = id_logprobs.data();
  }
};

inline void check_equal_rows(const Row& actual, const Row& expected, const std::string& what) {
  CHECK_MESSAGE(actual.request.token == expected.request.token,
                what << ": " << actual.request.token << " against " << expected.request.token);
  CHECK_MESSAGE(same(actual.request.logprob, expected.request.logprob), what);
  check_same(actual.top_logprobs, expected.top_logprobs, what + " top");
  check_same(actual.id_logprobs, expected.id_logprobs, what + " ids");
  for (size_t i = 0; i < actual.top_ids.size(); ++i) CHECK_EQ(actual.top_ids[i], expected.top_ids[i]);
}

inline SampleArgs random_args(std::mt19937_64& random) {
  SampleArgs args;
  const auto pick = [&](std::initializer_list<double> values) { return *(values.begin() + random() % values.size()); };
  args.greedy = random() % 8 == 0;
  args.temperature = float(pick({1.0, 1.0, 0.7, 0.1, 1e-5, 2.5, 100.0}));
  args.top_k = int64_t(pick({-1, -1, 1, 2, 40, 1000, 1e9}));
  args.top_p = pick({1.0, 1.0, 0.95, 0.5, 0.01, 0.999999});
  args.min_p = pick({0.0, 0.0, 0.05, 0.9, 1.0});
  args.key = {uint32_t(random()), uint32_t(random() % 3), uint32_t(random() % 5000)};
  return args;
}

inline bool has_bit(const std::vector<uint32_t>& words, int i) { return (words[i / 32] >> (i % 32) & 1) != 0; }

/// From a mask that leaves one token to one that leaves all but one; bits past the vocabulary are set.
inline std::vector<uint32_t> random_mask(int n, std::mt19937_64& random) {
  std::vector<uint32_t> words((n + 31) / 32, ~uint32_t(0));
  const uint64_t share = std::initializer_list<uint64_t>{0, 1, 50, 99}.begin()[random() % 4];
  for (int i = 0; i < n; ++i) {
    if (random() % 100 >= share) words[i / 32] &= ~(uint32_t(1) << (i % 32));
  }
  const int kept = int(random() % n);
  words[kept / 32] |= uint32_t(1) << (kept % 32);
  return words;
}

}  // namespace detinfer::testing
