#include "kernels/sampler/sampler.h"

#include <string>

#include "core/error.h"
#include "core/thread_pool.h"
#include "tests/native/isa.h"
#include "tests/native/sampler_rows.h"

namespace detinfer::testing {
namespace {

void fast_path_equals_reference() {
  std::mt19937_64 random(41);
  ThreadPool pool(2);
  for (int trial = 0; trial < 150; ++trial) {
    int n = 1 + int(random() % 3000);
    if (trial % 10 == 0) n = 1 + trial;
    if (trial % 10 == 1) n = trial == 71 ? 151936 : 40000;
    const float deviation = trial % 5 == 0 ? 0.01f : trial % 5 == 1 ? 12.0f : 2.5f;
    std::vector<float> logits = draw_logits(n, deviation, trial % 3 == 0, random);
    const int rows = 1 + trial % 3;
    for (int i = 1; i < rows; ++i) {
      const auto more = draw_logits(n, 3.0f, false, random);
      logits.insert(logits.end(), more.begin(), more.end());
    }
    std::vector<int32_t> ids(1 + random() % 4), counts(ids.size(), 2);
    std::vector<float> biases(ids.size());
    for (int32_t& id : ids) id = int32_t(random() % n);
    for (float& bias : biases) bias = random() % 3 == 0 ? -kInfinity : float(random() % 20) - 10.0f;
    const std::vector<uint32_t> allowed = random_mask(n, random);
    std::vector<SampleArgs> args;
    std::vector<RowRequest> wanted(rows);
    for (int i = 0; i < rows; ++i) args.push_back(random_args(random));
    for (int i = 0; i < rows; ++i) {
      if (random() % 3 == 0) {
        args[i].bias_ids = ids.data();
        args[i].bias_values = biases.data();
        args[i].bias_count = int(ids.size());
      }
      if (random() % 3 == 0) args[i].penalties = {0.5f, 1.25f, 1.3f, ids.data(), counts.data(), 1};
      if (random() % 3 == 0) args[i].allowed = allowed.data();
      wanted[i].sample = random() % 4 == 0 ? nullptr : &args[i];
      wanted[i].sampled_logprob = wanted[i].sample && random() % 2 == 0;
      wanted[i].target = wanted[i].sampled_logprob ? -1 : int32_t(random() % n);
      wanted[i].logprob_temperature = args[i].greedy ? 1.0f : args[i].temperature;
      wanted[i].top = std::min(n, int(random() % 25));
      wanted[i].token_ids = ids.data();
      wanted[i].token_id_count = int(ids.size());
    }
    std::vector<Row> expected(wanted.begin(), wanted.end());
    for (int i = 0; i < rows; ++i) evaluate_row_reference(logits.data() + size_t(i) * n, n, expected[i].request);
    for_each_isa([&](const char* isa) {
      std::vector<Row> actual(wanted.begin(), wanted.end());
      std::vector<RowRequest> requests;
      for (const Row& row : actual) requests.push_back(row.request);
      evaluate_rows_cpu(pool, logits.data(), rows, n, requests.data());
      for (int i = 0; i < rows; ++i) {
        actual[i].request = requests[i];
        check_equal_rows(actual[i], expected[i],
                         std::string(isa) + " trial " + std::to_string(trial) + " row " + std::to_string(i));
      }
    });
  }
}

void sums_do_not_depend_on_the_split() {
  std::mt19937_64 random(42);
  ThreadPool pool(3);
  for (int n : {1, 2047, 2048, 2049, 8191, 8193, 100000, 600000}) {
    const std::vector<float> x = draw_logits(n, 4.0f, false, random);
    const Softmax expected = softmax_reference(x.data(), n);
    for_each_isa([&](const char*) {
      for (ThreadPool* p : {static_cast<ThreadPool*>(nullptr), &pool}) {
        const Range range = range_cpu(p, x.data(), n);
        CHECK_EQ(range.max, expected.max);
        const Softmax actual = softmax_cpu(p, x.data(), n, range.max, nullptr);
        CHECK_EQ(actual.total, expected.total);
        CHECK_EQ(actual.log_total, expected.log_total);
      }
    });
  }
}

/// Differences so small that there are more of them to 1 than floats go up to.
void filters_work_on_nearly_equal_logits() {
  ThreadPool pool(1);
  for (float step : {1e-38f, 1e-36f, 1e-33f}) {
    std::vector<float> logits(100);
    for (int id = 0; id < 100; ++id) logits[id] = float(id % 10) * step;
    SampleArgs args;
    args.top_k = 13;
    args.top_p = 0.5;
    RowRequest expected;
    expected.sample = &args;
    for (args.key.position = 0; args.key.position < 50; ++args.key.position) {
      RowRequest request = expected;
      evaluate_row_reference(logits.data(), 100, expected);
      evaluate_rows_cpu(pool, logits.data(), 1, 100, &request);
      CHECK_EQ(request.token, expected.token);
    }
  }
}

void banned_tokens_are_never_drawn() {
  ThreadPool pool(1);
  std::vector<float> logits(100, 0.0f);
  std::vector<int32_t> ids;
  for (int id = 0; id < 100; ++id) {
    if (id != 63) ids.push_back(id);
  }
  const std::vector<float> bans(ids.size(), -kInfinity);
  SampleArgs args;
  args.bias_ids = ids.data();
  args.bias_values = bans.data();
  args.bias_count = int(ids.size());
  RowRequest request;
  request.sample = &args;
  for (args.key.position = 0; args.key.position < 50; ++args.key.position) {
    evaluate_rows_cpu(pool, logits.data(), 1, 100, &request);
    CHECK_EQ(request.token, 63);
  }
}

void only_allowed_tokens_are_drawn() {
  std::mt19937_64 random(43);
  ThreadPool pool(2);
  for (int trial = 0; trial < 300; ++trial) {
    const int n = 1 + int(random() % 500);
    const std::vector<float> logits = draw_logits(n, 6.0f, trial % 3 == 0, random);
    const std::vector<uint32_t> allowed = random_mask(n, random);
    SampleArgs args = random_args(random);
    args.allowed = allowed.data();
    RowRequest request;
    request.sample = &args;
    request.sampled_logprob = true;
    evaluate_rows_cpu(pool, logits.data(), 1, n, &request);
    CHECK(has_bit(allowed, request.token));
    // What is reported knows nothing of the mask.
    const Softmax softmax = softmax_reference(logits.data(), n);
    CHECK_EQ(request.logprob, softmax.logprob(logits[request.token]));

    // The same as if the logits of the other tokens were -infinity.
    std::vector<float> masked(logits);
    for (int i = 0; i < n; ++i) {
      if (!has_bit(allowed, i)) masked[i] = -kInfinity;
    }
    args.allowed = nullptr;
    RowRequest expected;
    expected.sample = &args;
    evaluate_row_reference(masked.data(), n, expected);
    CHECK_EQ(request.token, expected.token);

    // The filters see the allowed tokens alone: top_k 1 is the best of them.
    args.allowed = allowed.data();
    args.greedy = false;
    args.top_k = 1;
    evaluate_rows_cpu(pool, logits.data(), 1, n, &request);
    CHECK_EQ(request.token, std::max_element(masked.begin(), masked.end()) - masked.begin());
  }
}

void the_only_allowed_token_is_drawn() {
  ThreadPool pool(1);
  const int n = 70;
  std::vector<float> logits(n, 5.0f);
  for (int only : {0, 31, 32, 63, 64, 69}) {
    std::vector<uint32_t> allowed(3, 0);
    allowed[only / 32] = uint32_t(1) << (only % 32);
    logits[only] = -50.0f;
    for (bool greedy : {false, true}) {
      SampleArgs args;
      args.greedy = greedy;
      args.allowed = allowed.data();
      args.top_k = 3;
      args.top_p = 0.5;
      args.min_p = 0.9;
      // A bias can't bring a token back.
      const int32_t other = only == 0 ? 1 : 0;
      const float bias = 1e30f;
      args.bias_ids = &other;
      args.bias_values = &bias;
      args.bias_count = 1;
      RowRequest request;
      request.sample = &args;
      evaluate_rows_cpu(pool, logits.data(), 1, n, &request);
      CHECK_EQ(request.token, only);
      evaluate_row_reference(logits.data(), n, request);
      CHECK_EQ(request.token, only);
    }
    logits[only] = 5.0f;
  }
}

void draws_follow_the_distribution() {
  // 20,000 draws from four tokens: counts within five standard deviations.
  ThreadPool pool(1);
  const std::vector<float> logits = {0.0f, 1.0f, -1.0f, 2.0f};
  const Softmax softmax = softmax_reference(logits.data(), 4);
  const int draws = 20000;
  int counts[4] = {};
  SampleArgs args;
  args.key.seed_low = 7;
  RowRequest request;
  request.sample = &args;
  for (int i = 0; i < draws; ++i) {
    args.key.position = uint32_t(i);
    evaluate_rows_cpu(pool, logits.data(), 1, 4, &request);
    ++counts[request.token];
  }
  for (int id = 0; id < 4; ++id) {
    const double p = std::exp(double(softmax.logprob(logits[id])));
    CHECK(std::abs(counts[id] - draws * p) < 5.0 * std::sqrt(draws * p * (1.0 - p)));
  }
}

void refuses_logits_that_are_not_finite() {
  ThreadPool pool(1);
  for (float bad : {kInfinity, -kInfinity, std::numeric_limits<float>::quiet_NaN()}) {
    std::vector<float> logits(50, 1.0f);
    logits[49] = bad;
    RowRequest request;
    request.target = 3;
    const std::string message = MESSAGE_OF(Error, evaluate_rows_cpu(pool, logits.data(), 1, 50, &request));
    CHECK(message.find("not finite") != std::string::npos);
  }
}

}  // namespace

extern const TestTable kSamplerTests = {"sampler",
                                        {{"fast path equals reference", fast_path_equals_reference},
                                         {"sums do not depend on the split", sums_do_not_depend_on_the_split},
                                         {"filters work on nearly equal logits", filters_work_on_nearly_equal_logits},
                                         {"banned tokens are never drawn", banned_tokens_are_never_drawn},
                                         {"only allowed tokens are drawn", only_allowed_tokens_are_drawn},
                                         {"the only allowed token is drawn", the_only_allowed_token_is_drawn},
                                         {"draws follow the distribution", draws_follow_the_distribution},
                                         {"refuses logits that are not finite", refuses_logits_that_are_not_finite}}};

}  // namespace detinfer::testing
