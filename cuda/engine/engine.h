// A loaded model and its KV cache. Nothing of a request is kept between steps but what its pages hold.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/config_map.h"
#include "core/thread_pool.h"
#include "engine/slice.h"
#include "engine/submission.h"
#include "engine/weight_source.h"
#include "models/model.h"

namespace detinfer {

/// Makes the operations of a device. @param pool outlives them
using MakeOps = std::function<std::unique_ptr<Ops>(ThreadPool& pool)>;

class Engine {
 public:
  /// Plans the model and checks the weights; allocates nothing for them. @param threads at least 1
  /// @throws Error kUnsupported, kInvalidModel, kInvalidWeights
  Engine(const ConfigMap& config, std::unique_ptr<WeightSource> weights, int threads, const MakeOps& make_ops);

  /// Reads and packs the weights. @param progress gets the bytes done and the total @throws Error kInvalidWeights
  void load(const std::function<void(int64_t, int64_t)>& progress);

  /// Reserves what a step needs beside the cache. A step of more rows is run in several passes; one of more slices is
  /// refused. @throws Error kOutOfMemory
  void reserve(int step_rows, int step_slices);

  /// Reserves a cache of `pages` pages of `page_size` tokens, a multiple of 16, and prepares for sequences of up to
  /// context_length tokens. After reserve(). @throws Error kUnsupported, kOutOfMemory
  void allocate_cache(int page_size, int64_t pages, int context_length);

  /// Starts a step. At most two may be under way. A token -1 - j, the last of its slice, is the one that slice j of the step
  /// submitted before draws. What the slices point to is read until this returns.
  /// @throws Error kInvalidRequest before anything ran; kEngineFailed
  void submit(const std::vector<ForwardSlice>& slices);

  /// Waits for the oldest step under way. @return one result per slice, in order, valid until the next submit()
  /// @throws Error kEngineFailed
  const std::vector<SliceResult>& collect();

  /// Runs slices by themselves, for comparisons between engines; no step may be under way.
  /// @return logits of every scored row and of the last row of every slice that draws, row-major
  std::vector<float> logits(const std::vector<ForwardSlice>& slices);

  const Model& model() const { return *model_; }
  std::string device_name() const { return ops_->device_name(); }
  DeviceMemory device_memory() const { return ops_->memory(); }
  int threads() const { return pool_.threads(); }
  int64_t weight_bytes() const;
  /// Bytes of weights that one decoded token reads; known once they are loaded.
  int64_t weight_bytes_per_token() const;
  int64_t kv_bytes_per_token() const;

 private:
  static constexpr int kMaxUnderWay = 2;

  void check(const std::vector<ForwardSlice>& slices) const;
  void run_pass(Submission& step, const Pass& pass);
  void run_repeated(Submission& step, const Pass& pass, int rows);
  void record_passes();
  Batch start_pass(const Submission& step, const Pass& pass, int rows);
  RowRequest* take_wanted(Submission& step, const Pass& pass, int count, int rows);

  ThreadPool pool_;
  std::unique_ptr<Ops> ops_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<WeightSource> weights_;
  ParameterList parameters_;
  RopeTables rope_;
  KvCache cache_;
  int context_length_ = 0;
  PassLimits limits_;

  Submission submissions_[kMaxUnderWay];
  int submitted_ = 0;
  int collected_ = 0;

  // Buffers of the pass that runs, at addresses that never change.
  Workspace work_;
  std::vector<char> host_inputs_;
  std::vector<int32_t> host_rows_;
  DeviceArray<char> inputs_;
  DeviceArray<int32_t> rows_, drawn_, newly_drawn_;
  DeviceArray<float> logits_;
};

}  // namespace detinfer
