// One piece of attention on a CPU: some consecutive positions of one sequence for the query heads that share a KV head.
#pragma once

#include <vector>

#include "kernels/attention/attention.h"
#include "kernels/linear/chain_row.h"

namespace detinfer {

/// Positions per tile: enough queries to share each widened key, few enough that their state stays in the cache.
constexpr int kTilePositions = 16;

struct AttentionTile {
  /// [rows][heads][head_dim], from the tile's first row on.
  const bf16* q;
  bf16* out;
  int heads;
  int kv_head;
  /// Query heads per KV head.
  int group;
  int positions;
  /// Absolute position of the first row.
  int start;
  const bf16* keys;
  const bf16* values;
  const int32_t* pages;
  KvLayout layout;

  int queries() const { return positions * group; }
  int query_position(int query) const { return start + query / group; }
  int64_t query_offset(int query) const {
    return (int64_t(query / group) * heads + kv_head * group + query % group) * layout.head_dim;
  }
  /// First dword of 16 keys or values. @param key_group absolute position / 16
  const uint32_t* group_of(const bf16* pool, int key_group) const {
    const int groups_per_page = layout.page_size / 16;
    const int64_t page = pages[key_group / groups_per_page];
    return reinterpret_cast<const uint32_t*>(pool + layout.group_offset(page, kv_head, key_group % groups_per_page));
  }
};

/// State of a tile's queries, kept by a thread between tiles.
struct AttentionScratch {
  std::vector<float> q_values, scores, acc, total, sums, maxima, total_sums, total_maxima;
  std::vector<uint32_t> q_exponents;
  std::vector<int> q_bounds;
  /// Weights of one block as rows of a chain. [queries][kBlockKeys]
  std::vector<float> p_values;
  std::vector<uint32_t> p_exponents;

  void reserve(int queries, int head_dim);
};

/// Smallest exponent field of x, with which E of every step is so large that the exponents of w need not be known:
/// then w_e + 25 - E <= 25 - x_e stays in range, and an infinity or NaN of w puts E out of range by itself.
constexpr int kSafeExponent = 25;

/// Computes one score by mma16. @param key absolute position
float exact_score(const AttentionTile& tile, int query, int key);

/// Continues a chain over the values of a block by mma16. @param first_key absolute position of the block
/// @param dim dimension of the value, or -1 for the vector of ones @param weights [kBlockKeys] as f32
float exact_weighted_sum(const AttentionTile& tile, int query, int first_key, int dim, const float* weights, float acc);

void attention_tile_avx512(const AttentionTile& tile, AttentionScratch& scratch);
void attention_tile_avx2(const AttentionTile& tile, AttentionScratch& scratch);
void attention_tile_portable(const AttentionTile& tile, AttentionScratch& scratch);

}  // namespace detinfer
