// What each thread block of a step will do, as plain lists that the kernels of a backend read from device memory. Which
// lists are made may depend on the batch; no bit of a result does.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/attention/attention_cuda.h"

namespace detinfer {

/// Rows of most backends' tiles of prefill: positions times the query heads that share a KV head.
constexpr int kTileRows = 128;

/// Consecutive positions of one slice for all query heads of a KV head; every KV head has the same tiles.
struct PrefillTile {
  /// Row of q and out that holds the first position.
  int32_t row;
  int32_t positions;
  /// Absolute position of the first one.
  int32_t start;
  /// Where the slice's pages begin in the list of pages.
  int32_t pages;
};

/// A split of the keys that one row attends to. The ids of its pages follow in the same record.
struct DecodeSplit {
  int32_t row;
  /// Visible keys, 1 … 512.
  int32_t keys;
  /// Index of the split in its sequence, of `splits`.
  int32_t split;
  int32_t splits;
  /// The split's place in the workspace is partial + split.
  int32_t partial;
  /// Counts the finished splits of the sequence.
  int32_t counter;
  /// For a kernel to put a KV head in.
  int32_t padding;
  /// Absolute position of the row.
  int32_t position;
};

/// Consecutive blocks of keys of a tile, for one KV head.
struct PrefillPiece {
  PrefillTile tile;
  int32_t kv_head;
  /// The first block and the one behind the last. Only whole splits lie before and behind a piece.
  int32_t first;
  int32_t end;
  int32_t padding;
};

constexpr int kSplitWords = int(sizeof(DecodeSplit) / sizeof(int32_t));

/// Sizes and places, in words of 32 bits, within the plan's buffer:
///   [0] number of decode splits   [1] number of prefill tiles   [2], [3] unused
///   splits at kHeaderWords, then tiles, then pages
/// and with shares of prefill, pieces and their number before each share
/// Places depend on the limits alone, so that a captured graph finds them again.
struct PlanLayout {
  static constexpr int kHeaderWords = 4;

  /// @param max_shares of prefill; 0 if the kernels always deal whole tiles
  PlanLayout(const PagedKvLayout& kv, int heads, const AttentionLimits& limits, int tile_rows, int max_shares);

  /// Words of a decode record: a DecodeSplit and its pages, a multiple of 4.
  int split_words = 0;
  int pages_per_split = 0;
  /// log2 of the page size.
  int page_shift = 0;
  /// Positions of a full tile.
  int tile_positions = 0;
  int max_splits = 0;
  int max_tiles = 0;
  int max_shares = 0;
  int64_t tiles_at = 0;
  int64_t pages_at = 0;
  int64_t pieces_at = 0;
  int64_t shares_at = 0;
  int64_t words = 0;
};

/// Lists of one step.
struct AttentionPlan {
  int splits = 0;
  int tiles = 0;
  /// Shares of prefill, and all their pieces. Without any, whole tiles are dealt.
  int shares = 0;
  int pieces = 0;
  int rows = 0;
  /// Entries of the list of pages.
  int64_t pages = 0;
};

/// Fills `buffer` (layout.words long). Slices of one row become decode splits, longer ones become tiles; both are
/// ordered by falling work, ties by the batch's order.
/// @throws Error kInvalidRequest if the step exceeds the limits
AttentionPlan make_plan(const PlanLayout& layout, const PagedKvLayout& kv, const AttentionLimits& limits,
                        const AttentionSlice* slices, int count, int32_t* buffer);

/// Blocks of keys that a tile reads.
int blocks_of(const PrefillTile& tile);

/// The lists in words, for people.
std::string plan_text(const PlanLayout& layout, const AttentionPlan& plan, const int32_t* buffer);

}  // namespace detinfer
