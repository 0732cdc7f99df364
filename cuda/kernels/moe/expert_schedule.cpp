#include "kernels/moe/expert_schedule.h"

#include <algorithm>
#include <cmath>

#include "kernels/linear/linear_schedule.h"

namespace detinfer {
namespace {

int ceil_div(int a, int b) { return (a + b - 1) / b; }

/// Entries of an expert, on average, from which clusters of two tiles pay.
constexpr int kLeastOfPairs = 208;

/// The narrowest width that holds so many entries, at most `most`.
int width_of(int entries, int most) {
  for (int width : kExpertWidths) {
    if (width >= std::min(entries, most)) return width;
  }
  return most;
}

/// How many outputs a tile should have for few rows, where a block takes as long as it reads weights: the most that the
/// busiest one reads should be least.
int outputs_of_few(int rows, int experts, int top_k, int n, int multiprocessors) {
  const double hit = experts * (1 - std::pow(1 - double(top_k) / experts, rows));
  int best = kExpertTiles[0].outputs(), least = 0;
  for (int outputs = best; outputs >= 64; outputs -= 16) {
    const int read = int(std::ceil(hit * ceil_div(n, outputs) / multiprocessors)) * outputs;
    if (least != 0 && read >= least) continue;
    least = read;
    best = outputs;
  }
  return best;
}

}  // namespace

std::string ExpertSchedule::text() const {
  return std::to_string(outputs) + "x" + std::to_string(entries) + " x" + std::to_string(stages) + " on " +
         std::to_string(blocks);
}

ExpertSchedule schedule_of_expert_tile(int tile, int outputs, int entries, int rows, int experts, int top_k, int n,
                                       int k, int multiprocessors) {
  ExpertSchedule s = {};
  s.tile = tile;
  s.outputs = outputs;
  s.entries = entries;
  s.steps = ceil_div(k, 64);
  s.experts = experts;
  s.stages = (kSharedBytes - 1024 - s.table_bytes()) / (s.stage_bytes() + 16);
  s.output_tiles = ceil_div(n, outputs);
  const int cluster = s.shape().cluster;
  const int64_t most_groups =
      int64_t(std::min(rows * top_k, experts + rows * top_k / (entries * cluster))) * s.output_tiles;
  s.blocks = int(std::min<int64_t>(multiprocessors / cluster, most_groups)) * cluster;
  return s;
}

ExpertSchedule choose_expert_schedule(int rows, int experts, int top_k, int n, int k, int multiprocessors) {
  // A tile has room for several times an expert's share of the rows, as long as the pipeline stays deep.
  const int share = ceil_div(rows * top_k, experts);
  const int tile = rows <= kExpertTiles[0].entries ? 0 : share < kLeastOfPairs ? 1 : 2;
  const int most = share <= 16 ? 64 : share <= 32 ? 128 : kExpertTiles[tile].entries;
  const int outputs =
      tile == 0 ? outputs_of_few(rows, experts, top_k, n, multiprocessors) : kExpertTiles[tile].outputs();
  return schedule_of_expert_tile(tile, outputs, width_of(rows, most), rows, experts, top_k, n, k, multiprocessors);
}

}  // namespace detinfer
