// What the layers of a model share during one step: the batch, the KV cache and the buffers between operations.
#pragma once

#include <array>

#include "kernels/ops.h"

namespace detinfer {

/// The rows of all slices, one after another. Arrays have one element per row and lie in the device's memory, except
/// `slices`.
struct Batch {
  int rows = 0;
  const int32_t* tokens = nullptr;
  const int32_t* positions = nullptr;
  /// page · page_size + position within the page
  const int64_t* slots = nullptr;
  const AttentionSlice* slices = nullptr;
  int slice_count = 0;
};

/// Keys and values of all layers.
class KvCache {
 public:
  KvCache() = default;
  KvCache(Ops& ops, const KvLayout& layout, int layers, int64_t pages)
      : layout_(layout),
        pages_(pages),
        keys_(ops, size_t(layers * pages * layout.page_elements())),
        values_(ops, size_t(layers * pages * layout.page_elements())) {}

  const KvLayout& layout() const { return layout_; }
  int64_t pages() const { return pages_; }
  bf16* keys(int layer) { return keys_.data() + layer * pages_ * layout_.page_elements(); }
  bf16* values(int layer) { return values_.data() + layer * pages_ * layout_.page_elements(); }

 private:
  KvLayout layout_;
  int64_t pages_ = 0;
  DeviceArray<bf16> keys_;
  DeviceArray<bf16> values_;
};

/// Buffers between operations, which grow once and are used again by every layer and step.
class Workspace {
 public:
  enum Buffer {
    kHidden,
    kNormed,
    kQkv,
    kQueries,
    kAttended,
    kGateUp,
    kActivated,
    kDelta,
    kPicked,
    kPickedDelta,
    kPickedNormed,
    kCount
  };

  bf16* get(Ops& ops, Buffer buffer, int64_t elements) { return buffers_[buffer].reserve(ops, size_t(elements)); }

 private:
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

  bf16* buffer(Workspace::Buffer name, int64_t elements) { return work.get(ops, name, elements); }
};

}  // namespace detinfer
