// Router logits that reach every corner of a choice of experts, and arrays for its outcome.
#pragma once

#include <limits>
#include <random>
#include <vector>

#include "kernels/moe/moe.h"

namespace detinfer::testing {

/// Arrays for an ExpertRoutes in host memory.
struct Routes {
  Routes(int rows, const RouteSpec& spec)
      : experts(size_t(rows) * spec.top_k, -1),
        weights(experts.size(), -1.0f),
        first(size_t(spec.experts) + 1, -1),
        row(experts.size(), -1),
        place(experts.size(), -1) {}

  ExpertRoutes view() { return {experts.data(), weights.data(), first.data(), row.data(), place.data()}; }

  std::vector<int32_t> experts;
  std::vector<float> weights;
  std::vector<int32_t> first, row, place;
};

enum class RouterLogits {
  kNormal,
  kTies,       // few values, so that most choices are between equals
  kEqual,      // all the same
  kOneExpert,  // every row prefers the last expert; the first is never among the best unless all are chosen
  kFarApart,   // weights that underflow
  kSpecial,    // with infinities and NaNs
  kNan,        // nothing but NaN
};

constexpr RouterLogits kAllRouterLogits[] = {RouterLogits::kNormal,    RouterLogits::kTies,     RouterLogits::kEqual,
                                             RouterLogits::kOneExpert, RouterLogits::kFarApart, RouterLogits::kSpecial,
                                             RouterLogits::kNan};

inline float draw_logit(RouterLogits kind, int expert, const RouteSpec& spec, std::mt19937_64& random) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  const float x = std::normal_distribution<float>()(random);
  switch (kind) {
    case RouterLogits::kNormal: return x;
    case RouterLogits::kTies: return float(random() % 3);
    case RouterLogits::kEqual: return 0.5f;
    case RouterLogits::kOneExpert: return expert == spec.experts - 1 ? 50.0f : expert == 0 ? -50.0f : x;
    case RouterLogits::kFarApart: return x * 60.0f;
    case RouterLogits::kSpecial:
      switch (random() % 16) {
        case 0: return kNan;
        case 1: case 2: return -kInfinity;
        case 3: return random() % 8 ? x : kInfinity;
        default: return x;
      }
    case RouterLogits::kNan: return kNan;
  }
  return x;
}

/// Logits [rows][experts].
inline std::vector<float> draw_logits(RouterLogits kind, int rows, const RouteSpec& spec, std::mt19937_64& random) {
  std::vector<float> logits;
  for (int i = 0; i < rows * spec.experts; ++i) logits.push_back(draw_logit(kind, i % spec.experts, spec, random));
  return logits;
}

}  // namespace detinfer::testing
