#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include "core/error.h"
#include "kernels/linear/linear.h"
#include "kernels/moe/moe.h"

namespace detinfer {
namespace {

void route_row(const float* logits, const RouteSpec& spec, int32_t* experts, float* weights) {
  std::vector<float> x(logits, logits + spec.experts);
  for (float& logit : x) logit = route_logit(logit);
  std::vector<int32_t> order(spec.experts);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return x[a] > x[b]; });

  const float m = x[order[0]];
  float total = 0.0f;
  for (int i = 0; i < (spec.normalize ? spec.top_k : spec.experts); ++i) {
    total += exp_f32(x[spec.normalize ? order[i] : i] - m);
  }
  for (int rank = 0; rank < spec.top_k; ++rank) {
    experts[rank] = order[rank];
    weights[rank] = exp_f32(x[order[rank]] - m) / total;
  }
}

}  // namespace

void check_route_spec(const RouteSpec& spec) {
  if (spec.experts > kMaxExperts || spec.top_k > kMaxTopK) {
    throw Error(ErrorCode::kUnsupported,
                std::to_string(spec.top_k) + " of " + std::to_string(spec.experts) + " experts are not supported; " +
                    std::to_string(kMaxTopK) + " of " + std::to_string(kMaxExperts) + " are the most");
  }
  if (spec.top_k > spec.experts) {
    throw Error(ErrorCode::kInvalidModel, std::to_string(spec.top_k) + " experts per token are more than the " +
                                              std::to_string(spec.experts) + " that the model has");
  }
}

void route_experts_reference(const float* logits, int rows, const RouteSpec& spec, const ExpertRoutes& routes) {
  for (int row = 0; row < rows; ++row) {
    const int64_t at = int64_t(row) * spec.top_k;
    route_row(logits + int64_t(row) * spec.experts, spec, routes.experts + at, routes.weights + at);
  }
  int32_t entry = 0;
  for (int expert = 0; expert < spec.experts; ++expert) {
    routes.first[expert] = entry;
    for (int i = 0; i < rows * spec.top_k; ++i) {
      if (routes.experts[i] != expert) continue;
      routes.row[entry] = i / spec.top_k;
      routes.place[i] = entry++;
    }
  }
  routes.first[spec.experts] = entry;
}

void expert_linear_reference(const bf16* x, int, const RouteSpec& spec, const ExpertRoutes& routes, bool gather,
                             const bf16* w, int n, int k, bf16* y) {
  std::vector<float> sums(n);
  for (int expert = 0; expert < spec.experts; ++expert) {
    for (int32_t entry = routes.first[expert]; entry < routes.first[expert + 1]; ++entry) {
      const int64_t row = gather ? routes.row[entry] : entry;
      linear_reference(x + row * k, 1, w + int64_t(expert) * n * k, n, k, nullptr, sums.data());
      std::transform(sums.begin(), sums.end(), y + int64_t(entry) * n, to_bf16);
    }
  }
}

void combine_experts_reference(const bf16* y, int rows, int n, const RouteSpec& spec, const ExpertRoutes& routes,
                               bf16* out) {
  for (int row = 0; row < rows; ++row) {
    for (int i = 0; i < n; ++i) {
      float acc = 0.0f;
      for (int at = row * spec.top_k; at < (row + 1) * spec.top_k; ++at) {
        acc = std::fma(routes.weights[at], to_float(y[int64_t(routes.place[at]) * n + i]), acc);
      }
      out[int64_t(row) * n + i] = to_bf16(acc);
    }
  }
}

}  // namespace detinfer
