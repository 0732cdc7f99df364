#include <algorithm>
#include <vector>

#include "core/cpu_isa.h"
#include "core/thread_pool.h"
#include "kernels/attention/attention.h"
#include "kernels/attention/attention_tile.h"
#include "kernels/mma16/mma16.h"

namespace detinfer {
namespace {

using TileFunction = void (*)(const AttentionTile&, AttentionScratch&);

TileFunction tile_function() {
#if defined(__x86_64__)
  if (cpu_isa() == CpuIsa::kAvx512) return attention_tile_avx512;
  if (cpu_isa() == CpuIsa::kAvx2) return attention_tile_avx2;
#endif
  return attention_tile_portable;
}

/// Element of 16 packed keys or values. @param lane_stride dwords from one pair of the inner index to the next
bf16 packed_element(const uint32_t* group, int inner, int lane, int lane_stride) {
  const uint32_t pair = group[inner / 2 * lane_stride + lane];
  return bf16{uint16_t(inner % 2 ? pair >> 16 : pair)};
}

}  // namespace

void AttentionScratch::reserve(int queries, int head_dim) {
  for (std::vector<float>* v : {&q_values, &acc, &total}) v->resize(size_t(queries) * head_dim);
  for (std::vector<float>* v : {&scores, &p_values}) v->resize(size_t(queries) * kBlockKeys);
  for (std::vector<float>* v : {&sums, &maxima, &total_sums, &total_maxima}) v->resize(queries);
  q_exponents.resize(size_t(queries) * head_dim / 2);
  p_exponents.resize(size_t(queries) * kBlockKeys / 2);
  q_bounds.resize(queries);
}

float exact_score(const AttentionTile& tile, int query, int key) {
  const uint32_t* keys = tile.group_of(tile.keys, key / 16);
  const bf16* q = tile.q + tile.query_offset(query);
  float score = 0.0f;
  for (int d = 0; d < tile.layout.head_dim; d += kStepTerms) {
    bf16 column[kStepTerms];
    for (int j = 0; j < kStepTerms; ++j) column[j] = packed_element(keys, d + j, key % 16, 16);
    score = mma16(q + d, column, 1, score);
  }
  return score;
}

float exact_weighted_sum(const AttentionTile& tile, int query, int first_key, int dim, const float* weights,
                         float acc) {
  const int visible = std::min(kBlockKeys, tile.query_position(query) + 1 - first_key);
  for (int j = 0; j < visible; j += kStepTerms) {
    const uint32_t* group = tile.group_of(tile.values, (first_key + j) / 16);
    bf16 row[kStepTerms], column[kStepTerms];
    for (int i = 0; i < kStepTerms; ++i) {
      const bool seen = j + i < visible;
      row[i] = seen ? to_bf16(weights[j + i]) : bf16{0};
      column[i] = !seen ? bf16{0} : dim < 0 ? bf16{0x3F80} : packed_element(group, i, dim, tile.layout.head_dim);
    }
    acc = mma16(row, column, 1, acc);
  }
  return acc;
}

void attention_cpu(ThreadPool& pool, const bf16* q, int heads, const bf16* keys, const bf16* values,
                   const KvLayout& layout, const AttentionSlice* slices, int slice_count, bf16* out) {
  struct Item {
    const AttentionSlice* slice;
    int first;
    int kv_head;
  };
  // Kept between calls: a step of the model is dozens of them.
  static thread_local std::vector<Item> items;
  items.clear();
  for (int i = 0; i < slice_count; ++i) {
    // Later positions see more keys; starting with them evens the threads' loads.
    for (int tile = (slices[i].rows - 1) / kTilePositions; tile >= 0; --tile) {
      for (int head = 0; head < layout.kv_heads; ++head) items.push_back({&slices[i], tile * kTilePositions, head});
    }
  }
  const Item* const work = items.data();
  const TileFunction function = tile_function();
  const int group = heads / layout.kv_heads;
  pool.parallel_for(int64_t(items.size()), 1, [&](int64_t begin, int64_t end) {
    static thread_local AttentionScratch scratch;
    scratch.reserve(kTilePositions * group, layout.head_dim);
    for (int64_t i = begin; i < end; ++i) {
      const Item& item = work[i];
      const int64_t row = int64_t(item.slice->first_row + item.first) * heads * layout.head_dim;
      AttentionTile tile;
      tile.q = q + row;
      tile.out = out + row;
      tile.heads = heads;
      tile.kv_head = item.kv_head;
      tile.group = group;
      tile.positions = std::min(kTilePositions, item.slice->rows - item.first);
      tile.start = item.slice->start + item.first;
      tile.keys = keys;
      tile.values = values;
      tile.pages = item.slice->pages;
      tile.layout = layout;
      function(tile, scratch);
    }
  });
}

}  // namespace detinfer
