// Where the keys and values of one layer lie on a GPU, and what a GPU backend of attention is asked.
#pragma once

#include <cstdint>

#include "core/numerics.h"
#include "kernels/attention/attention.h"

namespace detinfer {

/// Keys and values have the same layout: [page][kv_head][page_size][head_dim], so that a page of one head is one piece of
/// memory and a TMA box of it needs no gather. `page_size` is 16·2^i.
///
/// Slots that were never written, and those behind the last position of a sequence, may hold anything **finite**: a GPU
/// multiplies their values by a weight of 0 instead of leaving them out, and 0·∞ is NaN. So a pool starts as zeros.
struct PagedKvLayout {
  int kv_heads = 0;
  int head_dim = 0;
  int page_size = 0;

  int64_t page_elements() const { return int64_t(page_size) * kv_heads * head_dim; }
  /// Element (position within the page, dim) of a head's keys or values.
  DETINFER_HD int64_t offset(int64_t page, int head, int slot, int dim) const {
    return ((page * kv_heads + head) * page_size + slot) * head_dim + dim;
  }
};

/// The most that a step may hold; buffers of this size are made once, so that their addresses can stand in a CUDA graph.
struct AttentionLimits {
  int slices = 0;
  /// Rows of all slices.
  int rows = 0;
  /// Pages of one sequence.
  int pages_per_slice = 0;
  /// Splits of 512 keys over all slices of one row, which are decoded in parallel.
  int decode_splits = 0;
};

}  // namespace detinfer
