// What the layers of a model share during one step: the batch, the KV cache and the buffers between operations.
#pragma once

#include <algorithm>
#include <array>

#include "kernels/ops.h"

namespace detinfer {

/// The rows of all slices, one after another. Arrays lie in the device's memory and have one element per row, but `drawn`.
struct Batch {
  int rows = 0;
  /// A negative one refers to `drawn`: -1 - index.
  const int32_t* tokens = nullptr;
  /// Tokens that the step before drew, by the index of its slice.
  const int32_t* drawn = nullptr;
  const int32_t* positions = nullptr;
  /// page · page_size + position within the page
  const int64_t* slots = nullptr;
};

/// Keys and values of all layers.
class KvCache {
 public:
  KvCache() = default;
  KvCache(Ops& ops, const KvLayout& layout, int layers, int64_t pages)
      : layout_(layout), pages_(pages), keys_(ops, elements(layers)), values_(ops, elements(layers)) {}

  const KvLayout& layout() const { return layout_; }
  int64_t pages() const { return pages_; }
  /// Pages of a layer in memory: one more, which rows of padding write to.
  int64_t pool_pages() const { return pages_ + 1; }
  int64_t padding_slot() const { return pages_ * layout_.page_size; }
  bf16* keys(int layer) { return keys_.data() + elements(layer); }
  bf16* values(int layer) { return values_.data() + elements(layer); }

 private:
  size_t elements(int layers) const { return size_t(layers * pool_pages() * layout_.page_elements()); }

  KvLayout layout_;
  int64_t pages_ = 0;
  DeviceArray<bf16> keys_;
  DeviceArray<bf16> values_;
};

/// Buffers between operations, which every layer and step uses again. Layers declare what they need, then all buffers are
/// allocated, once: their addresses may be recorded.
class Workspace {
 public:
  enum Buffer {
    // One element of these per row of a pass,
    kHidden,
    kNormed,
    kQkv,
    kQueries,
    kAttended,
    kGateUp,
    kActivated,
    kDelta,
    // and of these per row whose logits are wanted.
    kPicked,
    kPickedDelta,
    kPickedNormed,
    kCount
  };

  void declare(Buffer buffer, int64_t elements_per_row) {
    widths_[buffer] = std::max(widths_[buffer], elements_per_row);
  }

  void allocate(Ops& ops, const PassLimits& limits) {
    for (int i = 0; i < kCount; ++i) {
      const int rows = i < kPicked ? limits.rows : limits.logits_rows;
      buffers_[i] = DeviceArray<bf16>();
      buffers_[i] = DeviceArray<bf16>(ops, size_t(widths_[i] * rows));
    }
  }

  bf16* get(Buffer buffer) { return buffers_[buffer].data(); }

 private:
  std::array<int64_t, kCount> widths_ = {};
  std::array<DeviceArray<bf16>, kCount> buffers_;
};

/// cos and sin of the rotary embedding, [position][head_dim/2].
struct RopeTables {
  DeviceArray<float> cos;
  DeviceArray<float> sin;
};

struct Step {
  Ops& ops;
  Workspace& work;
  KvCache& cache;
  const RopeTables& rope;
  const Batch& batch;

  bf16* buffer(Workspace::Buffer name) { return work.get(name); }
};

}  // namespace detinfer
