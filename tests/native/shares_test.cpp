#include "attention/shares.h"

#include <algorithm>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "tests/native/check.h"

namespace detinfer::testing {
namespace {

constexpr int kMost = 132, kKvHeads = 8, kTilePositions = 48, kSplitBlocks = kSplitKeys / kBlockKeys;

/// The tiles of one slice, as a plan has them: the last positions first.
std::vector<PrefillTile> tiles_of(int start, int rows) {
  std::vector<PrefillTile> tiles;
  for (int first = 0; first < rows; first += kTilePositions) {
    tiles.insert(tiles.begin(), {first, std::min(kTilePositions, rows - first), start + first, 0});
  }
  return tiles;
}

/// Checks that the shares, if there are any, are all blocks of all pairs, in the order that handing on needs.
/// @return blocks of keys of the longest share
int check_shares(const std::vector<PrefillTile>& tiles, int kv_heads, int most, const std::string& what) {
  const int pairs = int(tiles.size()) * kv_heads;
  std::vector<PrefillPiece> pieces(pairs + most);
  std::vector<int32_t> begins(most + 1, -1);
  const int shares = share_out(tiles.data(), int(tiles.size()), kv_heads, kTilePositions, most, pieces.data(),
                               begins.data());
  if (shares == 0) return 0;
  CHECK_MESSAGE(shares <= most && begins[0] == 0, what);
  std::map<std::pair<int, int>, int> done;
  int longest = 0;
  for (int i = 0; i < shares; ++i) {
    int blocks = 0;
    CHECK_MESSAGE(begins[i] < begins[i + 1], what << ", share " << i);
    for (int p = begins[i]; p < begins[i + 1]; ++p) {
      const PrefillPiece& piece = pieces[p];
      const bool is_first = p == begins[i], is_last = p == begins[i + 1] - 1;
      CHECK_MESSAGE(piece.first < piece.end, what);
      if (piece.end < blocks_of(piece.tile)) {
        CHECK_MESSAGE(is_first && piece.end % kSplitBlocks == 0, what << ", share " << i);
      }
      if (piece.first > 0) {
        CHECK_MESSAGE(is_last && i > 0, what << ", share " << i);
        const PrefillPiece& before = pieces[begins[i - 1]];
        CHECK_MESSAGE(before.tile.row == piece.tile.row && before.kv_head == piece.kv_head, what << ", share " << i);
        CHECK_EQ(before.end, piece.first);
      }
      done[{piece.tile.row, piece.kv_head}] += piece.end - piece.first;
      blocks += piece.end - piece.first;
    }
    longest = std::max(longest, blocks);
  }
  CHECK_EQ(int(done.size()), pairs);
  for (const PrefillTile& tile : tiles) {
    for (int head = 0; head < kv_heads; ++head) {
      const int blocks = done[{tile.row, head}];
      CHECK_MESSAGE(blocks == blocks_of(tile), what);
    }
  }
  return longest;
}

void shares_are_all_pairs() {
  std::mt19937 random(1);
  int shared = 0;
  for (int n = 0; n < 2000; ++n) {
    std::vector<PrefillTile> tiles;
    int row = 0;
    for (int slice = random() % 20; slice >= 0; --slice) {
      for (PrefillTile tile : tiles_of(random() % 3000, 1 + random() % 300)) {
        tile.row = row;
        row += tile.positions;
        tiles.push_back(tile);
      }
    }
    std::sort(tiles.begin(), tiles.end(),
              [](const PrefillTile& a, const PrefillTile& b) { return blocks_of(a) > blocks_of(b); });
    const int kv_heads = 1 + random() % 8, most = 1 + random() % kMost;
    if (check_shares(tiles, kv_heads, most, "tiles number " + std::to_string(n)) > 0) ++shared;
  }
  CHECK(shared > 200 && shared < 1800);
}

void equal_whole_pairs_are_not_shared() {
  CHECK_EQ(check_shares(tiles_of(4096, 768), kKvHeads, kMost, "16 tiles"), 0);
  CHECK_EQ(check_shares(tiles_of(0, 8192), kKvHeads, kMost, "8192 tokens"), 0);
}

/// 2048 tokens behind a prefix are 344 pairs of about the same length, of which whole ones would leave 15% of the time
/// unused.
void a_long_prefix_is_shared_equally() {
  const std::vector<PrefillTile> tiles = tiles_of(14336, 2048);
  int total = 0;
  for (const PrefillTile& tile : tiles) total += blocks_of(tile) * kKvHeads;
  const int longest = check_shares(tiles, kKvHeads, kMost, "14336 + 2048");
  CHECK(longest >= total / kMost && longest <= total / kMost + kSplitBlocks);
}

}  // namespace

extern const TestTable kSharesTests = {"shares of prefill",
                                       {{"shares are all pairs", shares_are_all_pairs},
                                        {"equal whole pairs are not shared", equal_whole_pairs_are_not_shared},
                                        {"a long prefix is shared equally", a_long_prefix_is_shared_equally}}};

}  // namespace detinfer::testing
