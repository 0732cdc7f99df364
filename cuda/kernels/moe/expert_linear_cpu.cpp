#include <algorithm>
#include <vector>

#include "core/thread_pool.h"
#include "kernels/linear/linear_panel.h"
#include "kernels/mlp/swiglu.h"
#include "kernels/moe/moe.h"

namespace detinfer {
namespace {

/// A panel of outputs for some entries of one expert.
struct ExpertTile {
  int32_t expert;
  int32_t panel;
  int32_t first_entry;
  int32_t entries;
};

/// What is kept between calls: a step of the model is dozens of them.
struct Scratch {
  PreparedRows prepared;
  /// The row of each entry.
  std::vector<ChainRow> entries;
  std::vector<ExpertTile> tiles;
};

/// Only experts that have entries are read. The tiles of a panel follow each other, so that its weights come from
/// memory once. @param n outputs of an expert
void list_tiles(const RouteSpec& spec, const ExpertRoutes& routes, int n, std::vector<ExpertTile>& tiles) {
  tiles.clear();
  for (int32_t expert = 0; expert < spec.experts; ++expert) {
    const int32_t begin = routes.first[expert], end = routes.first[expert + 1];
    if (begin == end) continue;
    const int32_t first_panel = expert * n / kPanelColumns, last_panel = ((expert + 1) * n - 1) / kPanelColumns;
    for (int32_t panel = first_panel; panel <= last_panel; ++panel) {
      for (int32_t entry = begin; entry < end; entry += kTileRows) {
        tiles.push_back({expert, panel, entry, std::min<int32_t>(kTileRows, end - entry)});
      }
    }
  }
}

/// Computes a tile and calls store(entry, first output, sums, outputs) for its entries. At the ends of an expert a
/// panel may hold outputs of its neighbours, which are dropped.
template <class Store>
void run_tile(const ExpertTile& tile, const PackedMatrix& w, const ChainRow* entries, int n, const Store& store) {
  float buffer[kTileRows * kPanelColumns];
  multiply_panel(w, tile.panel, entries + tile.first_entry, tile.entries, buffer);
  const int panel_begin = tile.panel * kPanelColumns, expert_begin = tile.expert * n;
  const int begin = std::max(panel_begin, expert_begin);
  const int end = std::min(panel_begin + kPanelColumns, expert_begin + n);
  for (int i = 0; i < tile.entries; ++i) {
    store(tile.first_entry + i, begin - expert_begin, buffer + i * kPanelColumns + (begin - panel_begin), end - begin);
  }
}

template <class Store>
void run(ThreadPool& pool, const bf16* x, int rows, const RouteSpec& spec, const ExpertRoutes& routes, bool gather,
         const PackedMatrix& w, const Store& store) {
  const int entry_count = rows * spec.top_k, n = w.n / spec.experts;
  static thread_local Scratch scratch;
  PreparedRows& prepared = scratch.prepared;
  prepared.prepare(pool, x, gather ? rows : entry_count, w.k, w.padded_k());
  if (gather) {
    scratch.entries.resize(entry_count);
    for (int i = 0; i < entry_count; ++i) scratch.entries[i] = prepared.rows[routes.row[i]];
  }
  const ChainRow* const entries = gather ? scratch.entries.data() : prepared.rows.data();
  list_tiles(spec, routes, n, scratch.tiles);
  const ExpertTile* const tiles = scratch.tiles.data();
  const int64_t largest_tile = int64_t(std::min(rows, kTileRows)) * kPanelColumns * w.padded_k();
  pool.parallel_for(int64_t(scratch.tiles.size()), std::max<int64_t>(1, kGrainWork / largest_tile),
                    [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) run_tile(tiles[i], w, entries, n, store);
  });
}

}  // namespace

void expert_linear_cpu(ThreadPool& pool, const bf16* x, int rows, const RouteSpec& spec, const ExpertRoutes& routes,
                       bool gather, const PackedMatrix& w, bf16* y) {
  const int n = w.n / spec.experts;
  run(pool, x, rows, spec, routes, gather, w, [=](int64_t entry, int first, const float* sums, int count) {
    std::transform(sums, sums + count, y + entry * n + first, to_bf16);
  });
}

void expert_linear_swiglu_cpu(ThreadPool& pool, const bf16* x, int rows, const RouteSpec& spec,
                              const ExpertRoutes& routes, const PackedMatrix& w, bf16* y) {
  const int n = w.n / spec.experts;
  run(pool, x, rows, spec, routes, true, w, [=](int64_t entry, int first, const float* sums, int count) {
    swiglu_of_sums(sums, count, y + (entry * n + first) / 2);
  });
}

}  // namespace detinfer
