#include "attention/plan.h"

#include <algorithm>
#include <sstream>

#include "attention/shares.h"
#include "core/error.h"

namespace detinfer {
namespace {

int ceil_div(int a, int b) { return (a + b - 1) / b; }

[[noreturn]] void over_limit(const char* what, int64_t limit) {
  throw Error(ErrorCode::kInvalidRequest, "attention: a step may hold at most " + std::to_string(limit) + " " + what);
}

int pages_of(const AttentionSlice& slice, const PagedKvLayout& kv) {
  return ceil_div(slice.start + slice.rows, kv.page_size);
}

/// Appends the splits of all one-row slices that have `blocks` blocks of keys.
void add_splits(const PlanLayout& layout, const PagedKvLayout& kv, const AttentionSlice* slices, int count, int blocks,
                AttentionPlan& plan, int32_t* buffer) {
  int partial = 0, counter = 0;
  for (int i = 0; i < count; ++i) {
    const AttentionSlice& slice = slices[i];
    if (slice.rows != 1) continue;
    const int keys = slice.start + 1, splits = ceil_div(keys, kSplitKeys), last_page = pages_of(slice, kv) - 1;
    for (int s = 0; s < splits; ++s) {
      const int split_keys = std::min(kSplitKeys, keys - s * kSplitKeys);
      if (ceil_div(split_keys, kBlockKeys) != blocks) continue;
      int32_t* const record = buffer + PlanLayout::kHeaderWords + int64_t(plan.splits++) * layout.split_words;
      *reinterpret_cast<DecodeSplit*>(record) = {slice.first_row, split_keys, s, splits, partial, counter, 0, slice.start};
      // Places behind the sequence's last page repeat it: whole blocks are loaded and their tail is masked.
      for (int p = 0; p < layout.pages_per_split; ++p) {
        record[kSplitWords + p] = slice.pages[std::min(s * kSplitKeys / kv.page_size + p, last_page)];
      }
    }
    partial += splits;
    ++counter;
  }
}

}  // namespace

int blocks_of(const PrefillTile& tile) { return ceil_div(tile.start + tile.positions, kBlockKeys); }

PlanLayout::PlanLayout(const PagedKvLayout& kv, int heads, const AttentionLimits& limits, int tile_rows, int max_shares)
    : max_shares(max_shares) {
  pages_per_split = std::max(1, kSplitKeys / kv.page_size);
  split_words = ceil_div(kSplitWords + pages_per_split, 4) * 4;
  while ((1 << page_shift) < kv.page_size) ++page_shift;
  tile_positions = tile_rows / (heads / kv.kv_heads);
  max_splits = limits.decode_splits;
  // Every slice may end with a tile that isn't full.
  max_tiles = limits.rows / tile_positions + limits.slices;
  tiles_at = kHeaderWords + int64_t(max_splits) * split_words;
  pages_at = tiles_at + int64_t(max_tiles) * int64_t(sizeof(PrefillTile) / sizeof(int32_t));
  words = pages_at + int64_t(limits.slices) * limits.pages_per_slice;
  if (max_shares == 0) return;
  pieces_at = (words + 3) / 4 * 4;
  // A share ends with a cut at most.
  const int64_t max_pieces = int64_t(max_tiles) * kv.kv_heads + max_shares;
  shares_at = pieces_at + max_pieces * int64_t(sizeof(PrefillPiece) / sizeof(int32_t));
  words = shares_at + max_shares + 1;
}

AttentionPlan make_plan(const PlanLayout& layout, const PagedKvLayout& kv, const AttentionLimits& limits,
                        const AttentionSlice* slices, int count, int32_t* buffer) {
  if (count > limits.slices) over_limit("slices", limits.slices);
  AttentionPlan plan;
  int splits = 0;
  for (int i = 0; i < count; ++i) {
    const AttentionSlice& slice = slices[i];
    plan.rows = std::max(plan.rows, slice.first_row + slice.rows);
    if (slice.rows == 1) splits += ceil_div(slice.start + 1, kSplitKeys);
    if (pages_of(slice, kv) > limits.pages_per_slice) over_limit("pages per sequence", limits.pages_per_slice);
  }
  if (plan.rows > limits.rows) over_limit("rows", limits.rows);
  if (splits > layout.max_splits) over_limit("decoded splits of 512 keys", layout.max_splits);
  for (int blocks = kSplitKeys / kBlockKeys; blocks > 0; --blocks) {
    add_splits(layout, kv, slices, count, blocks, plan, buffer);
  }
  auto* const tiles = reinterpret_cast<PrefillTile*>(buffer + layout.tiles_at);
  for (int i = 0; i < count; ++i) {
    const AttentionSlice& slice = slices[i];
    if (slice.rows == 1) continue;
    for (int first = 0; first < slice.rows; first += layout.tile_positions) {
      tiles[plan.tiles++] = {slice.first_row + first, std::min(layout.tile_positions, slice.rows - first),
                             slice.start + first, int32_t(plan.pages)};
    }
    std::copy_n(slice.pages, pages_of(slice, kv), buffer + layout.pages_at + plan.pages);
    plan.pages += pages_of(slice, kv);
  }
  std::stable_sort(tiles, tiles + plan.tiles,
                   [](const PrefillTile& a, const PrefillTile& b) { return blocks_of(a) > blocks_of(b); });
  if (layout.max_shares > 0) {
    plan.shares = share_out(tiles, plan.tiles, kv.kv_heads, layout.tile_positions, layout.max_shares,
                            reinterpret_cast<PrefillPiece*>(buffer + layout.pieces_at), buffer + layout.shares_at);
    if (plan.shares > 0) plan.pieces = buffer[layout.shares_at + plan.shares];
  }
  buffer[0] = plan.splits;
  buffer[1] = plan.tiles;
  buffer[2] = buffer[3] = 0;
  return plan;
}

std::string plan_text(const PlanLayout& layout, const AttentionPlan& plan, const int32_t* buffer) {
  std::ostringstream text;
  text << plan.splits << " decode splits, " << plan.tiles << " prefill tiles of up to " << layout.tile_positions
       << " positions\n";
  for (int i = 0; i < plan.splits; ++i) {
    const auto& split = *reinterpret_cast<const DecodeSplit*>(buffer + PlanLayout::kHeaderWords +
                                                              int64_t(i) * layout.split_words);
    text << "  row " << split.row << ": split " << split.split << " of " << split.splits << ", " << split.keys
         << " keys\n";
  }
  const auto* const tiles = reinterpret_cast<const PrefillTile*>(buffer + layout.tiles_at);
  for (int i = 0; i < plan.tiles; ++i) {
    text << "  rows " << tiles[i].row << " + " << tiles[i].positions << " at position " << tiles[i].start << ", "
         << blocks_of(tiles[i]) << " blocks\n";
  }
  if (plan.shares > 0) text << "  in " << plan.shares << " shares of " << plan.pieces << " pieces\n";
  return text.str();
}

}  // namespace detinfer
