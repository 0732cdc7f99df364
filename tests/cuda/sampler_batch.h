// Batches for the tests of the sampler on a GPU: random and adversarial logits, and random requests of every kind.
#pragma once

#include <algorithm>
#include <numeric>
#include <random>
#include <set>
#include <vector>

#include "kernels/sampler/sampler.h"
#include "tests/cuda/pool.h"
#include "tests/native/sampler_rows.h"

namespace detinfer::testing {

/// Kinds of logits, random and adversarial.
enum class Logits { kNormal, kTies, kFlat, kPeaked, kWide, kEqual, kZeros, kSubnormal, kCount };

inline std::vector<float> logits_of(Logits kind, int n, std::mt19937_64& random) {
  switch (kind) {
    case Logits::kTies: return draw_logits(n, 2.5f, true, random);
    case Logits::kFlat: return draw_logits(n, 0.01f, false, random);
    case Logits::kPeaked: return draw_logits(n, 12.0f, false, random);
    case Logits::kWide: return draw_logits(n, 3e4f, false, random);
    case Logits::kEqual: return std::vector<float>(n, 1.5f);
    case Logits::kZeros: {
      std::vector<float> logits(n);
      for (float& x : logits) x = random() % 2 ? -0.0f : 0.0f;
      return logits;
    }
    case Logits::kSubnormal: {
      std::vector<float> logits(n);
      for (float& x : logits) x = bits_float(uint32_t(random()) & 0x807FFFFFu);
      return logits;
    }
    default: return draw_logits(n, 2.5f, false, random);
  }
}

/// Rows of logits and random requests for them, with what the requests point to.
class Batch {
 public:
  Batch(int rows, int n, std::mt19937_64& random) : n(n), args(rows), wanted(rows), lists_(rows) {
    for (int i = 0; i < rows; ++i) {
      const auto row = logits_of(Logits(random() % uint64_t(Logits::kCount)), n, random);
      logits.insert(logits.end(), row.begin(), row.end());
      fill(i, random);
    }
  }

  int rows() const { return int(wanted.size()); }
  const float* row(int i) const { return logits.data() + size_t(i) * n; }

  std::vector<Row> on_cpu() const {
    std::vector<Row> expected(wanted.begin(), wanted.end());
    pool().parallel_for(rows(), 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) evaluate_row_reference(row(int(i)), n, expected[i].request);
    });
    return expected;
  }

  int n;
  std::vector<float> logits;
  std::vector<SampleArgs> args;
  std::vector<RowRequest> wanted;

 private:
  struct Lists {
    std::vector<int32_t> penalty_ids, counts, bias_ids, token_ids;
    std::vector<float> biases;
    std::vector<uint32_t> allowed;
  };

  std::vector<int32_t> random_ids(int count, std::mt19937_64& random) const {
    std::vector<int32_t> ids(count);
    for (int32_t& id : ids) id = int32_t(random() % n);
    return ids;
  }

  void fill(int i, std::mt19937_64& random) {
    Lists& lists = lists_[i];
    SampleArgs& sample = args[i] = random_args(random);
    if (random() % 4 == 0) sample.top_k = int64_t(1 + random() % 200);
    if (random() % 3 == 0) {
      const auto ids = random_ids(random() % 4 == 0 ? 700 : 5, random);
      const std::set<int32_t> unique(ids.begin(), ids.end());
      lists.penalty_ids.assign(unique.begin(), unique.end());
      std::shuffle(lists.penalty_ids.begin(), lists.penalty_ids.end(), random);
      for (size_t j = 0; j < unique.size(); ++j) lists.counts.push_back(1 + int(random() % 9));
      sample.penalties = {random() % 2 ? 0.37f : -0.5f, random() % 2 ? 1.21f : 0.0f,    random() % 2 ? 1.3f : 0.7f,
                          lists.penalty_ids.data(),     lists.counts.data(), int(lists.counts.size())};
    }
    if (random() % 3 == 0) {
      lists.bias_ids = random_ids(random() % 4 == 0 ? 300 : 4, random);
      if (random() % 8 == 0) {  // every token banned
        lists.bias_ids.resize(n);
        std::iota(lists.bias_ids.begin(), lists.bias_ids.end(), 0);
        lists.biases.assign(n, -kInfinity);
      }
      while (lists.biases.size() < lists.bias_ids.size()) {
        const uint64_t kind = random() % 8;
        lists.biases.push_back(kind == 0 ? -kInfinity : kind == 1 ? 3e38f : float(random() % 2000) * 0.01f - 10.0f);
      }
      sample.bias_ids = lists.bias_ids.data();
      sample.bias_values = lists.biases.data();
      sample.bias_count = int(lists.biases.size());
    }
    if (random() % 4 == 0) {
      lists.allowed = random_mask(n, random);
      sample.allowed = lists.allowed.data();
    }
    RowRequest& r = wanted[i];
    r.sample = random() % 8 == 0 ? nullptr : &sample;
    r.logprob_temperature = sample.greedy ? 1.0f : random() % 8 == 0 ? 0.8f : sample.temperature;
    r.drawn_index = r.sample && random() % 4 != 0 ? i : -1;
    r.sampled_logprob = r.sample && random() % 3 == 0;
    if (random() % 4 == 0) r.target = int32_t(random() % n);
    if (random() % 3 == 0) {
      const int counts[] = {1, 5, 20, 100, 128, 129, 600, 3000};
      r.top = std::min(n, random() % 16 == 0 && n < 5000 ? n : counts[random() % (n < 5000 ? 8 : 7)]);
    }
    if (random() % 3 == 0) {
      lists.token_ids = random_ids(random() % 4 == 0 ? 2000 : 3, random);
      r.token_ids = lists.token_ids.data();
      r.token_id_count = int(lists.token_ids.size());
    }
  }

  std::vector<Lists> lists_;
};

}  // namespace detinfer::testing
