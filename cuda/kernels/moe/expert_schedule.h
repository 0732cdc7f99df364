// How a GPU walks the product of an expert layer. A thread block computes a tile at a time: some outputs of one expert
// for some of its entries. The host fixes how large a tile may be; how many entries it has follows, on the device, from
// those of the expert. All of it is schedule: every choice gives the same bits.
#pragma once

#include <string>

#include "core/numerics.h"

namespace detinfer {

/// The part of a schedule that a kernel is compiled for. Outputs stand on the 64-row side of wgmma, entries on the other,
/// which is as wide as a tile needs.
struct ExpertTile {
  /// Most entries.
  int entries;
  /// Parts of 64 outputs that each multiplying warpgroup has.
  int parts;
  /// Thread blocks of a cluster: neighbouring tiles of entries with the same outputs, which share weights.
  int cluster;

  /// Warpgroups that multiply, and warps that load.
  static constexpr int kWarpgroups = 2, kLoadingWarps = 4;
  static constexpr int kThreads = kWarpgroups * 128 + kLoadingWarps * 32;
  constexpr int outputs() const { return kWarpgroups * 64 * parts; }
  /// Tiles of an expert have a multiple of so many entries, but for the last.
  constexpr int height_step() const { return cluster > 1 ? 8 : 16; }
};

constexpr ExpertTile kExpertTiles[] = {
    {32, 1, 1},   // 0: expert_few_rows.cu
    {256, 1, 1},  // 1: expert_many_rows.cu
    {160, 2, 2},  // 2: expert_pairs.cu
};
constexpr int kExpertTileCount = sizeof(kExpertTiles) / sizeof(kExpertTiles[0]);

/// Widths of wgmma between which a tile chooses, ascending.
constexpr int kExpertWidths[] = {8, 16, 32, 48, 64, 96, 120, 128, 136, 144, 160, 176, 192, 224, 256};
constexpr int kExpertWidthCount = sizeof(kExpertWidths) / sizeof(kExpertWidths[0]);

struct ExpertSchedule {
  /// Index into kExpertTiles.
  int tile;
  /// Outputs of a tile, a multiple of 16: fewer than it has room for where they fit the multiprocessors better.
  int outputs;
  /// Most entries of a tile, one of kExpertWidths.
  int entries;
  /// Blocks of 64 k of a chain, one a stage, and the stages that the pipeline holds.
  int steps;
  int stages;
  /// Experts, and tiles of outputs of each.
  int experts;
  int output_tiles;
  /// Thread blocks, each taking every so manieth tile, or each cluster of them every so manieth group of tiles.
  int blocks;

  const ExpertTile& shape() const { return kExpertTiles[tile]; }
  int stage_bytes() const { return (shape().outputs() + entries) * 128; }
  /// Dynamic shared memory of a thread block: 1024 to align, the stages with two barriers each, three tables of experts.
  int shared_bytes() const { return 1024 + stages * (stage_bytes() + 16) + table_bytes(); }
  int table_bytes() const { return 3 * (experts + 1) * int(sizeof(int32_t)); }
  std::string text() const;
};

/// The schedule of a tile for a problem. @param outputs a multiple of 16, at most those of the tile
/// @param entries one of kExpertWidths, at most those of the tile @param n outputs of an expert
ExpertSchedule schedule_of_expert_tile(int tile, int outputs, int entries, int rows, int experts, int top_k, int n,
                                       int k, int multiprocessors);

/// The schedule that should be the fastest.
ExpertSchedule choose_expert_schedule(int rows, int experts, int top_k, int n, int k, int multiprocessors);

}  // namespace detinfer
