#include "attention/shares.h"

#include <algorithm>
#include <vector>

namespace detinfer {
namespace {

constexpr int kSplitBlocks = kSplitKeys / kBlockKeys;
/// Of the begin and the end of a piece, in units of half a block of keys for a full tile.
constexpr int kPieceTime = 3;
/// By so much whole pairs may take longer: thread blocks that have them read the same keys at the same time, from L2.
constexpr float kWorthCutting = 1.06f;

/// A place in the line of all pairs: before a block of keys of a pair.
struct Cut {
  int pair, block;
};

/// The pairs tile · kv_heads + KV head, and the time that they take.
struct Line {
  const PrefillTile* tiles;
  int pairs, kv_heads, tile_positions;

  const PrefillTile& tile(int pair) const { return tiles[pair / kv_heads]; }
  int blocks(int pair) const { return blocks_of(tile(pair)); }
  /// Of a block of keys. With so few rows a tile leaves half of the warps idle.
  int block_time(int pair) const { return tile(pair).positions * 2 > tile_positions ? 2 : 1; }
  int time(int pair, int first = 0) const { return (blocks(pair) - first) * block_time(pair) + kPieceTime; }

  /// Of the longest of `most` shares of whole pairs, as kernels deal them.
  int dealt_time(int most) const {
    std::vector<int> times(most);
    for (int pair = 0; pair < pairs; ++pair) {
      const int round = pair / most, i = pair % most;
      times[round % 2 == 0 ? i : most - 1 - i] += time(pair);
    }
    return *std::max_element(times.begin(), times.end());
  }

  /// The same for equal shares. None is shorter than a pair, so that no pair is cut twice.
  int least_time(int most) const {
    int64_t total = 0;
    int longest = 0;
    for (int pair = 0; pair < pairs; ++pair) {
      total += time(pair);
      longest = std::max(longest, time(pair));
    }
    return std::max(longest, int((total + most - 1) / most));
  }

  /// Where shares begin that take at most so much time each, and the end.
  std::vector<Cut> cut(int limit) const {
    std::vector<Cut> cuts = {{0, 0}};
    Cut at = {0, 0};
    int room = limit;
    while (at.pair < pairs) {
      if (time(at.pair, at.block) <= room) {
        room -= time(at.pair, at.block);
        at = {at.pair + 1, 0};
      } else {
        at.block += std::max(0, room - kPieceTime) / (kSplitBlocks * block_time(at.pair)) * kSplitBlocks;
        cuts.push_back(at);
        room = limit;
      }
    }
    cuts.push_back(at);
    return cuts;
  }
};

}  // namespace

int share_out(const PrefillTile* tiles, int count, int kv_heads, int tile_positions, int most, PrefillPiece* pieces,
              int32_t* begins) {
  const Line line = {tiles, count * kv_heads, kv_heads, tile_positions};
  if (line.pairs <= most) return 0;
  const int dealt = line.dealt_time(most);
  int limit = line.least_time(most);
  if (dealt <= kWorthCutting * limit) return 0;
  std::vector<Cut> cuts = line.cut(limit);
  while (int(cuts.size()) - 1 > most) cuts = line.cut(++limit);
  if (dealt <= kWorthCutting * limit) return 0;
  int written = 0, shares = 0;
  for (; shares + 1 < int(cuts.size()); ++shares) {
    const Cut begin = cuts[shares], end = cuts[shares + 1];
    begins[shares] = written;
    // Backwards: what the first piece leaves of its pair is the next share's last piece.
    for (int pair = end.block > 0 ? end.pair : end.pair - 1; pair >= begin.pair; --pair) {
      pieces[written++] = {line.tile(pair), pair % kv_heads, pair == begin.pair ? begin.block : 0,
                           pair == end.pair ? end.block : line.blocks(pair), 0};
    }
  }
  begins[shares] = written;
  return shares;
}

}  // namespace detinfer
