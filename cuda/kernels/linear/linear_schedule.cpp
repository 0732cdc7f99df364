#include "kernels/linear/linear_schedule.h"

#include <algorithm>

namespace detinfer {
namespace {

int ceil_div(int a, int b) { return (a + b - 1) / b; }

/// An estimate of the time, in clocks, that is good enough to choose by.
double estimate(const LinearSchedule& s, int n, int k, int multiprocessors) {
  const LinearTile& t = s.shape();
  // A block of 64 k: what the tensor cores, the caches and a multiprocessor's share of the memory need for it.
  const double mma = t.rows() / 64 * 4 * std::max(t.columns() / 2.0, 16.0 + t.columns() / 4.0);
  const double caches = 2.3 * (double(s.x_rows) / t.cluster_outputs + double(t.outputs) / t.cluster_tokens);
  const double share = 6.7 * t.outputs / t.cluster_tokens;
  const double blocks = (k + 63) / 64;
  const int tiles = s.token_tiles * s.output_tiles;
  const int waves = ceil_div(tiles, s.clusters);
  const double busy = waves * (blocks * std::max(mma, caches) + 1500);
  const double memory = 0.05 * double(n) * k * 2 / 132;
  const double turns = ceil_div(s.output_tiles, std::max(1, s.clusters / s.token_tiles));
  return std::max({busy, memory, s.token_tiles <= 2 ? turns * blocks * share : 0.0});
}

}  // namespace

std::string LinearSchedule::text() const {
  const LinearTile& t = shape();
  std::string result = std::to_string(x_rows) + "x" + std::to_string(t.outputs) + (t.swapped ? "s" : "") + " k" +
                       std::to_string(t.blocks * 64) + " x" + std::to_string(stages);
  if (t.cluster() > 1) result += " c" + std::to_string(t.cluster_tokens) + "." + std::to_string(t.cluster_outputs);
  return result + " g" + std::to_string(group) + " on " + std::to_string(clusters * t.cluster());
}

LinearSchedule schedule_of_tile(int tile, int rows, int n, int shared_bytes, int multiprocessors) {
  const LinearTile& t = kLinearTiles[tile];
  LinearSchedule s = {};
  s.tile = tile;
  s.x_rows = t.tokens;
  if (t.short_tokens()) {
    while (s.x_rows > 8 && s.x_rows / 2 >= rows) s.x_rows /= 2;
  }
  s.token_tiles = ceil_div(rows, t.tokens * t.cluster_tokens);
  s.output_tiles = ceil_div(n, t.outputs * t.cluster_outputs);
  s.group = std::min(s.token_tiles, std::max(1, 1024 / (t.tokens * t.cluster_tokens)));
  s.clusters = std::min(multiprocessors / t.cluster(), s.token_tiles * s.output_tiles);
  s.stages = std::min(32, (shared_bytes - 1024) / (s.stage_bytes() + 16));
  return s;
}

LinearSchedule choose_linear_schedule(int rows, int n, int k, int multiprocessors) {
  LinearSchedule best = {};
  double least = 0;
  for (int tile = 0; tile < kLinearTileCount; ++tile) {
    for (int shared : {kSharedOfTwo, kSharedOfOne}) {
      const LinearSchedule s = schedule_of_tile(tile, rows, n, shared, multiprocessors);
      if (s.stages < 3) continue;
      const double time = estimate(s, n, k, multiprocessors);
      if (best.stages == 0 || time < least) {
        least = time;
        best = s;
      }
    }
  }
  return best;
}

}  // namespace detinfer
