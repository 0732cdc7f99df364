#pragma once

#include <algorithm>
#include <chrono>

namespace detinfer {

/// Seconds of the fastest of `runs` calls: on a shared machine the others measure the neighbours.
template <class Body>
double best_seconds(int runs, const Body& body) {
  double best = 1e30;
  for (int i = 0; i < runs; ++i) {
    const auto start = std::chrono::steady_clock::now();
    body();
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

}  // namespace detinfer
