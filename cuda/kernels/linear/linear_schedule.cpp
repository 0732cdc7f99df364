#include "kernels/linear/linear_schedule.h"

#include <algorithm>

namespace detinfer {
namespace {

int ceil_div(int a, int b) { return (a + b - 1) / b; }

/// Weights that a block has under way when they stream through for several tiles.
constexpr int kStreamBytes = 100 * 1024;

/// Microseconds that a schedule should take; good enough to choose by. Constants are of an H200.
double estimate(const LinearSchedule& s, int n, int k, LinearOutput output, int multiprocessors) {
  constexpr double kMemory = 4.4e6, kMemoryOfOne = 55e3;  // bytes per microsecond: all, and what one block can ask for
  constexpr double kClock = 1600;                         // per microsecond
  const LinearTile& t = s.shape();
  const int at_once = multiprocessors / t.cluster(), tiles = s.token_tiles * s.output_tiles;
  const int waves = ceil_div(tiles, at_once), last = tiles - (waves - 1) * at_once;

  // The weights of all waves but the last pass at full bandwidth; a last one of few blocks cannot ask for it.
  // Token tiles outside one cluster read them again from L2, not quite at once.
  const double total = double(n) * k * 2 * (s.token_tiles > 1 ? 1.4 : 1.0);
  const double tile_bytes = double(t.outputs) / t.cluster_tokens * k * 2;
  const double last_bytes = total * last / tiles;
  const double memory = (total - last_bytes) / kMemory + std::max(last_bytes / kMemory, tile_bytes / kMemoryOfOne);

  // Clocks of a block of 64 k: tensor cores; shared memory, which wgmma reads and TMA writes; the way from L2.
  const double steps_of_16 = t.rows() / 64 * 4;
  const double tensor = steps_of_16 * t.columns() / 2;
  const double shared = steps_of_16 * (16 + t.columns() / 4.0) + s.x_rows + t.outputs;
  const double cache = 2.3 * (double(s.x_rows) / t.cluster_outputs + double(t.outputs) / t.cluster_tokens);
  const double tile_clocks = ceil_div(k, 64) * std::max({tensor, shared, cache});
  // A tile's end, where nothing is multiplied: each, or only a block's last.
  const double end_clocks = 2000.0 * (t.defers(output, n, s.steps) ? 1 : waves);

  const double block = (waves * tile_clocks + end_clocks) / kClock;
  const double shallow = 0.2 * std::max(0, 6 - s.stages);
  return std::max(memory, block) + 0.08 * std::min(memory, block) + 0.06 * tile_bytes / kMemoryOfOne + 0.05 * waves +
         (s.steps > s.stages ? shallow : 0.0);
}

}  // namespace

std::string LinearSchedule::text() const {
  const LinearTile& t = shape();
  std::string result = std::to_string(x_rows) + "x" + std::to_string(t.outputs) + (t.swapped ? "s" : "") + " k" +
                       std::to_string(t.blocks * 64) + " x" + std::to_string(stages);
  if (t.cluster() > 1) result += " c" + std::to_string(t.cluster_tokens) + "." + std::to_string(t.cluster_outputs);
  return result + " g" + std::to_string(group) + " on " + std::to_string(clusters * t.cluster());
}

LinearSchedule schedule_of_tile(int tile, int rows, int n, int k, int multiprocessors) {
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
  s.steps = ceil_div(k, t.blocks * 64);
  s.stages = std::min(s.steps, (kSharedBytes - 1024) / (s.stage_bytes() + 16));
  // Weights that stream through for long come faster when fewer are asked for at once.
  const int weight_bytes = t.blocks * t.outputs * 128;
  if (s.x_rows <= 32 && s.output_tiles > 2 * s.clusters) {
    s.stages = std::min(s.stages, std::max(4, kStreamBytes / weight_bytes));
  }
  return s;
}

LinearSchedule choose_linear_schedule(int rows, int n, int k, LinearOutput output, int multiprocessors) {
  LinearSchedule best = {};
  double least = 0;
  for (int tile = 0; tile < kLinearTileCount; ++tile) {
    const LinearSchedule s = schedule_of_tile(tile, rows, n, k, multiprocessors);
    const double time = estimate(s, n, k, output, multiprocessors);
    if (tile == 0 || time < least) {
      least = time;
      best = s;
    }
  }
  return best;
}

}  // namespace detinfer
