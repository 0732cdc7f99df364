// The plan of a step on its way to the device, where it always lies at the same places.
#pragma once

#include <cuda_runtime.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "attention/plan.h"
#include "core/cuda_memory.cuh"
#include "core/upload.cuh"

namespace detinfer {

/// Multiprocessors of the current device. @throws Error kUnsupported unless it is a Hopper GPU
inline int hopper_multiprocessors(const std::string& backend) {
  int device = 0, count = 0, major = 0;
  CUDA_CHECK(cudaGetDevice(&device));
  CUDA_CHECK(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device));
  CUDA_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
  if (major != 9) {
    throw Error(ErrorCode::kUnsupported, "attention backend " + backend + " needs a Hopper GPU (compute capability " +
                                             "9.0); choose another attention backend");
  }
  return count;
}

class DevicePlan {
 public:
  /// An empty plan. @param spare decode records that a kernel may read beyond the last one
  /// @param tile_rows, max_shares see PlanLayout
  DevicePlan(const PagedKvLayout& kv, int heads, const AttentionLimits& limits, int spare, int tile_rows = kTileRows,
             int max_shares = 0)
      : kv_(kv),
        limits_(limits),
        layout_(kv, heads, limits, tile_rows, max_shares),
        words_(CudaMemory::kDevice, layout_.words + int64_t(spare) * layout_.split_words),
        staging_{{CudaMemory::kPinned, layout_.words}, {CudaMemory::kPinned, layout_.words}} {
    CUDA_CHECK(cudaMemset(words_.data(), 0, PlanLayout::kHeaderWords * sizeof(int32_t)));
  }

  /// AttentionBackend::plan.
  void make(const AttentionSlice* slices, int count, cudaStream_t stream) {
    turn_ ^= 1;
    copied_[turn_].wait();
    int32_t* const from = staging_[turn_].data();
    plan_ = make_plan(layout_, kv_, limits_, slices, count, from);
    auto upload = [&](int64_t at, int64_t words) {
      upload_async(words_.data() + at, from + at, size_t(words) * sizeof(int32_t), stream);
    };
    upload(0, PlanLayout::kHeaderWords + int64_t(plan_.splits) * layout_.split_words);
    upload(layout_.tiles_at, int64_t(plan_.tiles) * int64_t(sizeof(PrefillTile) / sizeof(int32_t)));
    upload(layout_.pages_at, plan_.pages);
    upload(layout_.pieces_at, int64_t(plan_.pieces) * int64_t(sizeof(PrefillPiece) / sizeof(int32_t)));
    upload(layout_.shares_at, plan_.shares > 0 ? plan_.shares + 1 : 0);
    copied_[turn_].record(stream);
    if (std::getenv("DETINFER_PRINT_PLAN") != nullptr) {
      std::fputs(plan_text(layout_, plan_, from).c_str(), stderr);
    }
  }

  const PlanLayout& layout() const { return layout_; }
  /// What the host planned last.
  const AttentionPlan& planned() const { return plan_; }
  /// In device memory: the header and the decode records.
  const int32_t* words() const { return words_.data(); }
  const PrefillTile* tiles() const { return reinterpret_cast<const PrefillTile*>(words_.data() + layout_.tiles_at); }
  const PrefillPiece* pieces() const {
    return reinterpret_cast<const PrefillPiece*>(words_.data() + layout_.pieces_at);
  }
  const int32_t* shares() const { return words_.data() + layout_.shares_at; }
  const int32_t* pages() const { return words_.data() + layout_.pages_at; }

 private:
  PagedKvLayout kv_;
  AttentionLimits limits_;
  PlanLayout layout_;
  CudaArray<int32_t> words_;
  CudaArray<int32_t> staging_[2];
  CudaEvent copied_[2];
  int turn_ = 0;
  AttentionPlan plan_;
};

}  // namespace detinfer
