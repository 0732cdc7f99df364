#include "kernels/moe/moe.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "core/error.h"
#include "core/thread_pool.h"
#include "kernels/linear/linear.h"
#include "tests/native/gate_up.h"
#include "tests/native/isa.h"
#include "tests/native/operands.h"
#include "tests/native/routes.h"

namespace detinfer::testing {
namespace {

constexpr RouteSpec kSpecs[] = {{1, 1, true},   {4, 4, false},  {7, 3, true},    {16, 4, true},
                                {128, 8, true}, {60, 4, false}, {512, 32, true}, {512, 32, false}};

void check_routes(const Routes& actual, const Routes& expected, const std::string& what) {
  CHECK_MESSAGE(actual.experts == expected.experts, what << ": experts");
  check_same(actual.weights, expected.weights, what + ": weights");
  CHECK_MESSAGE(actual.first == expected.first, what << ": first");
  CHECK_MESSAGE(actual.row == expected.row, what << ": row");
  CHECK_MESSAGE(actual.place == expected.place, what << ": place");
}

std::string named(const RouteSpec& spec, int rows) {
  return std::to_string(spec.top_k) + " of " + std::to_string(spec.experts) + ", " + std::to_string(rows) + " rows";
}

void routes_equal_reference() {
  std::mt19937_64 random(31);
  ThreadPool pool(2);
  for (const RouteSpec& spec : kSpecs) {
    for (RouterLogits kind : kAllRouterLogits) {
      for (int rows : {1, 2, 5, 70}) {
        const auto logits = draw_logits(kind, rows, spec, random);
        Routes expected(rows, spec), actual(rows, spec);
        route_experts_reference(logits.data(), rows, spec, expected.view());
        for_each_isa([&](const char* isa) {
          route_experts_cpu(pool, logits.data(), rows, spec, actual.view());
          check_routes(actual, expected, std::string(isa) + " " + named(spec, rows));
        });
      }
    }
  }
}

void routes_follow_their_definition() {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  const RouteSpec spec{6, 3, true};
  Routes routes(2, spec);
  // A tie goes to the lower id; a NaN ranks with -infinity, before or behind it by id.
  const float logits[] = {1.0f, nan, 2.0f, -inf, 2.0f, 1.0f, nan, -inf, nan, 3.0f, -inf, -inf};
  route_experts_reference(logits, 2, spec, routes.view());
  CHECK((routes.experts == std::vector<int32_t>{2, 4, 0, 3, 0, 1}));
  CHECK((routes.first == std::vector<int32_t>{0, 2, 3, 4, 5, 6, 6}));
  CHECK((routes.row == std::vector<int32_t>{0, 1, 1, 0, 1, 0}));
  CHECK((routes.place == std::vector<int32_t>{3, 5, 0, 4, 1, 2}));
  CHECK_EQ(routes.weights[3], 1.0f);
  CHECK_EQ(routes.weights[4], 0.0f);
  CHECK_EQ(routes.weights[0], routes.weights[1]);
  CHECK(std::abs(double(routes.weights[0]) - 1.0 / (2.0 + std::exp(-1.0))) < 1e-7);
  // Without renormalising, a weight is the softmax over all experts.
  const float plain[] = {0.5f, -1.0f, 2.0f, 0.0f, 1.5f, -3.0f};
  route_experts_reference(plain, 1, {6, 2, false}, routes.view());
  double total = 0.0;
  for (float x : plain) total += std::exp(double(x));
  CHECK(std::abs(double(routes.weights[0]) - std::exp(2.0) / total) < 1e-7);
  CHECK(std::abs(double(routes.weights[1]) - std::exp(1.5) / total) < 1e-7);
  // A row without any number, or with an infinite logit, has no weights: what comes of it is seen to be NaN.
  for (const std::vector<float>& broken : {std::vector<float>{nan, nan}, std::vector<float>{inf, 1.0f}}) {
    route_experts_reference(broken.data(), 1, {2, 1, true}, routes.view());
    CHECK(std::isnan(routes.weights[0]));
  }
}

struct Shape {
  RouteSpec spec;
  int rows;
  int n;
  int k;
};

void compare_experts(const Shape& shape, Operands kind, RouterLogits logits_kind, std::mt19937_64& random) {
  const auto& [spec, rows, n, k] = shape;
  ThreadPool pool(2);
  const int entries = rows * spec.top_k;
  Routes routes(rows, spec);
  route_experts_reference(draw_logits(logits_kind, rows, spec, random).data(), rows, spec, routes.view());
  const auto w = draw(kind, size_t(spec.experts) * n * k, random), x = draw(kind, size_t(entries) * k, random);
  const PackedMatrix packed = pack_matrix(pool, w.data(), spec.experts * n, k);
  std::vector<bf16> expected(size_t(entries) * n), actual(expected.size());
  std::vector<bf16> expected_out(size_t(rows) * n), actual_out(expected_out.size());
  for (bool gather : {true, false}) {
    expert_linear_reference(x.data(), rows, spec, routes.view(), gather, w.data(), n, k, expected.data());
    combine_experts_reference(expected.data(), rows, n, spec, routes.view(), expected_out.data());
    for_each_isa([&](const char* isa) {
      const std::string what = std::string(isa) + " " + named(spec, rows) + ", n " + std::to_string(n) + ", k " +
                               std::to_string(k) + ", operands " + std::to_string(int(kind));
      expert_linear_cpu(pool, x.data(), rows, spec, routes.view(), gather, packed, actual.data());
      check_same(actual, expected, what);
      combine_experts_cpu(pool, actual.data(), rows, n, spec, routes.view(), actual_out.data());
      check_same(actual_out, expected_out, what + ", combined");
    });
  }
}

void compare_swiglu(const Shape& shape, Operands kind, RouterLogits logits_kind, std::mt19937_64& random) {
  const auto& [spec, rows, n, k] = shape;
  ThreadPool pool(2);
  const int entries = rows * spec.top_k;
  Routes routes(rows, spec);
  route_experts_reference(draw_logits(logits_kind, rows, spec, random).data(), rows, spec, routes.view());
  const auto w = draw(kind, size_t(spec.experts) * 2 * n * k, random), x = draw(kind, size_t(rows) * k, random);
  const PackedMatrix packed = pack_matrix(pool, in_groups(w, spec.experts, n, k).data(), spec.experts * 2 * n, k);
  std::vector<bf16> gate_up(size_t(entries) * 2 * n), expected(size_t(entries) * n), actual(expected.size());
  expert_linear_reference(x.data(), rows, spec, routes.view(), true, w.data(), 2 * n, k, gate_up.data());
  swiglu_reference(gate_up.data(), entries, n, expected.data());
  for_each_isa([&](const char* isa) {
    expert_linear_swiglu_cpu(pool, x.data(), rows, spec, routes.view(), packed, actual.data());
    check_same(actual, expected,
               std::string(isa) + " " + named(spec, rows) + ", n " + std::to_string(n) + ", operands " +
                   std::to_string(int(kind)));
  });
}

void experts_with_swiglu_equal_reference() {
  std::mt19937_64 random(34);
  for (Operands kind : kAllOperands) {
    compare_swiglu({{8, 2, true}, 9, 64, 32}, kind, RouterLogits::kNormal, random);
    // Panels that hold outputs of two or more experts, and a k that ends within a step.
    compare_swiglu({{5, 3, false}, 4, 40, 23}, kind, RouterLogits::kSpecial, random);
    compare_swiglu({{16, 4, true}, 3, 8, 16}, kind, RouterLogits::kNormal, random);
  }
  compare_swiglu({{4, 2, true}, 150, 24, 32}, Operands::kNormal, RouterLogits::kOneExpert, random);
}

void experts_equal_reference() {
  std::mt19937_64 random(32);
  for (Operands kind : kAllOperands) {
    for (RouterLogits logits : {RouterLogits::kNormal, RouterLogits::kOneExpert, RouterLogits::kSpecial}) {
      compare_experts({{8, 2, true}, 9, 64, 32}, kind, logits, random);
      // Panels that hold outputs of two or more experts, and a k that ends within a step.
      compare_experts({{5, 3, false}, 4, 40, 23}, kind, logits, random);
      compare_experts({{16, 4, true}, 3, 7, 16}, kind, logits, random);
      compare_experts({{3, 1, true}, 1, 150, 48}, kind, logits, random);
    }
  }
  // More rows for one expert than a tile holds.
  compare_experts({{4, 2, true}, 150, 80, 32}, Operands::kNormal, RouterLogits::kOneExpert, random);
  compare_experts({{4, 2, true}, 150, 80, 32}, Operands::kAnyBits, RouterLogits::kNormal, random);
  // Wider than what a thread combines at a time.
  compare_experts({{4, 2, true}, 3, 1100, 16}, Operands::kNormal, RouterLogits::kNormal, random);
}

void experts_are_combined_in_order_of_rank() {
  // Equal logits give equal weights. What cancels shows in which order it was added, and whether products were rounded.
  ThreadPool pool(2);
  const float large = std::ldexp(1.0f, 30), third = 1.0f / 3.0f, v = 1.4140625f;
  const std::vector<std::vector<float>> cases = {{large, 1.0f, -large, 1.0f}, {1.0f, -large, 1.0f, large},
                                                 {large, -large, 1.0f, 1.0f}, {1.0f, 1.0f, large, -large},
                                                 {v, -v, 0.0f}};
  const std::vector<float> expected = {0.25f, 0.0f, 0.5f, 0.0f, to_float(to_bf16(std::fma(third, -v, third * v)))};
  CHECK(expected.back() != 0.0f);
  for (size_t i = 0; i < cases.size(); ++i) {
    const RouteSpec spec{int(cases[i].size()), int(cases[i].size()), true};
    Routes routes(1, spec);
    route_experts_reference(std::vector<float>(spec.experts).data(), 1, spec, routes.view());
    std::vector<bf16> y(spec.top_k);
    for (int rank = 0; rank < spec.top_k; ++rank) y[routes.place[rank]] = to_bf16(cases[i][rank]);
    bf16 out;
    combine_experts_reference(y.data(), 1, 1, spec, routes.view(), &out);
    CHECK_EQ(to_float(out), expected[i]);
    for_each_isa([&](const char* isa) {
      bf16 fast;
      combine_experts_cpu(pool, y.data(), 1, 1, spec, routes.view(), &fast);
      CHECK_MESSAGE(fast.bits == out.bits, isa << " case " << i);
    });
  }
}

void an_expert_is_a_linear() {
  std::mt19937_64 random(33);
  ThreadPool pool(2);
  const RouteSpec spec{6, 2, true};
  const int rows = 20, n = 72, k = 64;
  Routes routes(rows, spec);
  route_experts_cpu(pool, draw_logits(RouterLogits::kNormal, rows, spec, random).data(), rows, spec, routes.view());
  const auto w = draw(Operands::kNormal, size_t(spec.experts) * n * k, random);
  const auto x = draw(Operands::kNormal, size_t(rows) * k, random);
  std::vector<bf16> y(size_t(rows) * spec.top_k * n), alone(n);
  expert_linear_cpu(pool, x.data(), rows, spec, routes.view(), true, pack_matrix(pool, w.data(), spec.experts * n, k),
                    y.data());
  for (int i = 0; i < rows * spec.top_k; ++i) {
    const PackedMatrix own = pack_matrix(pool, w.data() + size_t(routes.experts[i]) * n * k, n, k);
    linear_cpu(pool, x.data() + size_t(i / spec.top_k) * k, 1, own, nullptr, alone.data());
    const auto at = y.begin() + int64_t(routes.place[i]) * n;
    check_same(std::vector<bf16>(at, at + n), alone, "row and rank " + std::to_string(i));
  }
}

void too_many_experts_are_refused() {
  CHECK_EQ(MESSAGE_OF(Error, check_route_spec({513, 8, true})),
           "8 of 513 experts are not supported; 32 of 512 are the most");
  CHECK_EQ(MESSAGE_OF(Error, check_route_spec({64, 33, true})),
           "33 of 64 experts are not supported; 32 of 512 are the most");
  CHECK_EQ(MESSAGE_OF(Error, check_route_spec({4, 5, true})),
           "5 experts per token are more than the 4 that the model has");
  check_route_spec({512, 32, false});
}

}  // namespace

extern const TestTable kMoeTests = {"moe",
                                    {{"routes equal reference", routes_equal_reference},
                                     {"routes follow their definition", routes_follow_their_definition},
                                     {"experts equal reference", experts_equal_reference},
                                     {"experts with swiglu equal reference", experts_with_swiglu_equal_reference},
                                     {"experts are combined in order of rank",
                                      experts_are_combined_in_order_of_rank},
                                     {"an expert is a linear", an_expert_is_a_linear},
                                     {"too many experts are refused", too_many_experts_are_refused}}};

}  // namespace detinfer::testing
