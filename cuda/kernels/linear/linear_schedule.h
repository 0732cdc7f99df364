// How a GPU walks a linear layer: which tile a thread block computes at a time, and how deep its pipeline is. All of it
// is schedule: every choice gives the same bits, so it may depend on the number of rows.
#pragma once

#include <string>

#include "kernels/linear/linear_cuda.h"

namespace detinfer {

/// The part of a schedule that a kernel is compiled for. wgmma multiplies 64 rows of one operand by up to 256 of the
/// other.
struct LinearTile {
  /// Rows of x and of W (which are tokens and outputs) that a thread block computes at a time.
  int tokens;
  int outputs;
  /// Blocks of 64 k in a stage of the pipeline.
  int blocks;
  /// Outputs stand on the 64-row side; else tokens do, and a tile of 64 may hold fewer.
  bool swapped;
  /// Thread blocks of a cluster along tokens, which share weights, and along outputs, which share x.
  int cluster_tokens;
  int cluster_outputs;

  DETINFER_HD constexpr int rows() const { return swapped ? outputs : tokens; }
  DETINFER_HD constexpr int columns() const { return swapped ? tokens : outputs; }
  /// Warpgroups that multiply, and the tiles of 64 rows of each.
  DETINFER_HD constexpr int warpgroups() const { return rows() == 256 && !swapped ? 2 : rows() / 64; }
  DETINFER_HD constexpr int row_tiles() const { return rows() / 64 / warpgroups(); }
  /// A thread's accumulators.
  DETINFER_HD constexpr int accumulators() const { return row_tiles() * columns() / 2; }
  /// Whether there are registers for a tile's results beside the next one's, so that they can be stored meanwhile.
  DETINFER_HD constexpr bool defers() const {
    return !swapped && warpgroups() == 2 && row_tiles() == 1 && columns() % 64 == 0;
  }
  /// Parts in which they are stored, each behind a step of the next tile.
  DETINFER_HD constexpr int pending_parts() const { return columns() / 32; }
  /// Whether they are, in a product of n outputs and so many steps. f32 would take all the registers that are left.
  DETINFER_HD constexpr bool defers(LinearOutput output, int n, int steps) const {
    return defers() && output != LinearOutput::kF32 && n % 8 == 0 && steps >= pending_parts();
  }
  /// Whether a thread needs more registers than an equal share: the loading warp becomes a warpgroup that gives its own
  /// up.
  DETINFER_HD constexpr bool lends_registers() const { return warpgroups() > 1 && (accumulators() >= 128 || defers()); }
  DETINFER_HD constexpr int threads() const { return warpgroups() * 128 + (lends_registers() ? 128 : 32); }
  DETINFER_HD constexpr int cluster() const { return cluster_tokens * cluster_outputs; }
  /// Whether a tile may load fewer rows of x than it has.
  DETINFER_HD constexpr bool short_tokens() const { return !swapped && tokens == 64 && cluster() == 1; }
};

constexpr LinearTile kLinearTiles[] = {
    // tokens, outputs, blocks, swapped, cluster
    {64, 32, 4, false, 1, 1},    // 0: linear_few_rows.cu
    {64, 32, 2, false, 1, 1},    // 1
    {64, 48, 2, false, 1, 1},    // 2
    {64, 96, 2, false, 1, 1},    // 3
    {64, 192, 1, false, 1, 1},   // 4
    {64, 224, 1, false, 1, 1},   // 5
    {64, 256, 1, false, 1, 1},   // 6
    {64, 64, 2, false, 2, 1},    // 7: linear_some_rows.cu
    {64, 96, 2, false, 2, 1},    // 8
    {128, 64, 2, true, 2, 1},    // 9
    {128, 96, 1, false, 2, 1},   // 10
    {128, 128, 1, false, 2, 1},  // 11
    {128, 192, 1, false, 1, 1},  // 12: linear_many_rows.cu
    {128, 256, 1, false, 2, 1},  // 13
    {256, 192, 1, false, 1, 1},  // 14
};
constexpr int kLinearTileCount = sizeof(kLinearTiles) / sizeof(kLinearTiles[0]);

struct LinearSchedule {
  /// Index into kLinearTiles.
  int tile;
  /// Rows of x that a tile loads.
  int x_rows;
  /// Stages of a tile's chain, and those that the pipeline holds.
  int steps;
  int stages;
  /// Clusters that run at once, each taking every so manieth tile.
  int clusters;
  /// The matrix in tiles of a cluster.
  int token_tiles;
  int output_tiles;
  /// Token tiles that are walked together for each output tile.
  int group;

  const LinearTile& shape() const { return kLinearTiles[tile]; }
  int stage_bytes() const { return shape().blocks * (x_rows + shape().outputs) * 128; }
  /// Dynamic shared memory of a thread block: 1024 to align, the stages, two barriers each.
  int shared_bytes() const { return 1024 + stages * (stage_bytes() + 16); }
  std::string text() const;
};

/// Shared memory that a thread block may have. With all of it in use the next launch's blocks wait for this one's to end,
/// which costs less than half the pipeline.
constexpr int kSharedBytes = 227 * 1024;

/// The schedule of a tile for a problem.
LinearSchedule schedule_of_tile(int tile, int rows, int n, int k, int multiprocessors);

/// The schedule that should be the fastest.
LinearSchedule choose_linear_schedule(int rows, int n, int k, LinearOutput output, int multiprocessors);

}  // namespace detinfer
