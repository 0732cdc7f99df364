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
    kActivated,
    kExpertOutputs,
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

  /// Router logits and routes of a mixture of experts.
  void declare_routes(const RouteSpec& spec) {
    experts_ = std::max(experts_, spec.experts);
    top_k_ = std::max(top_k_, spec.top_k);
  }

  void allocate(Ops& ops, const PassLimits& limits) {
    for (int i = 0; i < kCount; ++i) {
      const int rows = i < kPicked ? limits.rows : limits.logits_rows;
      buffers_[i] = DeviceArray<bf16>();
      buffers_[i] = DeviceArray<bf16>(ops, size_t(widths_[i] * rows));
    }
    if (experts_ == 0) return;
    const size_t entries = size_t(limits.rows) * top_k_;
    router_logits_ = DeviceArray<float>(ops, size_t(limits.rows) * experts_);
    expert_weights_ = DeviceArray<float>(ops, entries);
    for (DeviceArray<int32_t>* array : {&experts_of_rows_, &entry_rows_, &entry_places_}) {
      *array = DeviceArray<int32_t>(ops, entries);
    }
    first_entries_ = DeviceArray<int32_t>(ops, size_t(experts_) + 1);
  }

  bf16* get(Buffer buffer) { return buffers_[buffer].data(); }
  float* router_logits() { return router_logits_.data(); }
  ExpertRoutes routes() {
    return {experts_of_rows_.data(), expert_weights_.data(), first_entries_.data(), entry_rows_.data(),
            entry_places_.data()};
  }

 private:
  std::array<int64_t, kCount> widths_ = {};
  std::array<DeviceArray<bf16>, kCount> buffers_;
  int experts_ = 0;
  int top_k_ = 0;
  DeviceArray<float> router_logits_, expert_weights_;
  DeviceArray<int32_t> experts_of_rows_, first_entries_, entry_rows_, entry_places_;
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
