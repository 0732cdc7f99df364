// attention over a paged KV cache, as docs/numerics.md defines it: splits of 512 keys, blocks of 128, online softmax
// with a lazy maximum, weights by the threshold rule, splits merged left to right.
#pragma once

#include <cstdint>

#include "core/numerics.h"

namespace detinfer {

class ThreadPool;

constexpr int kSplitKeys = 512;
constexpr int kBlockKeys = 128;

/// Where the keys and values of one layer lie. A page holds `page_size` positions (a multiple of 16) of all KV heads.
/// Within a page and head, groups of 16 positions are packed so that one 64-byte load feeds 16 lanes:
///   keys    [page][kv_head][page_size/16][head_dim/2][16 positions][2 dims]
///   values  [page][kv_head][page_size/16][8 position pairs][head_dim][2 positions]
/// Unwritten positions hold zeros or stale finite values, never NaN.
struct KvLayout {
  int kv_heads = 0;
  int head_dim = 0;
  int page_size = 0;

  int64_t page_elements() const { return int64_t(page_size) * kv_heads * head_dim; }
  int64_t group_offset(int64_t page, int head, int group) const {
    return page * page_elements() + (int64_t(head) * (page_size / 16) + group) * 16 * head_dim;
  }
  /// Element (position within the page, dim) of a head's keys.
  int64_t key_offset(int64_t page, int head, int slot, int dim) const {
    return group_offset(page, head, slot / 16) + (dim / 2) * 32 + (slot % 16) * 2 + dim % 2;
  }
  int64_t value_offset(int64_t page, int head, int slot, int dim) const {
    return group_offset(page, head, slot / 16) + (slot % 16 / 2) * 2 * head_dim + dim * 2 + slot % 2;
  }
};

/// c of the contract: what turns a score into an exponent of 2, f32(log2(e) / sqrt(head_dim)).
float attention_scale(int head_dim);

/// Queries of one sequence in a step: rows [first_row, first_row + rows) of q, at positions start, start + 1, …
struct AttentionSlice {
  int first_row = 0;
  int rows = 0;
  int start = 0;
  const int32_t* pages = nullptr;
};

/// The readable reference for one query row and head over contiguous keys.
/// @param q [head_dim] @param keys [position + 1][head_dim] @param values likewise @param out [head_dim], f32 before
/// rounding to bf16.
void attention_reference(const bf16* q, const bf16* keys, const bf16* values, int position, int head_dim,
                         float* out);

/// The fast path; bits equal attention_reference rounded to bf16.
/// @param q [rows][heads][head_dim] @param keys, values one layer's pool @param out [rows][heads][head_dim]
void attention_cpu(ThreadPool& pool, const bf16* q, int heads, const bf16* keys, const bf16* values,
                   const KvLayout& layout, const AttentionSlice* slices, int slice_count, bf16* out);

}  // namespace detinfer
