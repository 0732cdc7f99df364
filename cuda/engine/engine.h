// A loaded model and its KV cache. Nothing of a request is kept between steps but what its pages hold.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/config_map.h"
#include "core/thread_pool.h"
#include "engine/slice.h"
#include "engine/weight_source.h"
#include "models/model.h"

namespace detinfer {

class Engine {
 public:
  /// Plans the model and checks the weights; allocates nothing. @param threads at least 1
  /// @throws Error kUnsupported, kInvalidModel, kInvalidWeights
  Engine(const ConfigMap& config, std::unique_ptr<WeightSource> weights, int threads);

  /// Reads and packs the weights. @param progress gets the bytes done and the total
  void load(const std::function<void(int64_t, int64_t)>& progress);

  /// Reserves the buffers of a step of at most step_tokens rows and step_sequences slices.
  void reserve(int step_tokens, int step_sequences);

  /// Reserves a cache of `pages` pages of `page_size` tokens, a multiple of 16, and prepares for sequences of up to
  /// context_length tokens.
  void allocate_cache(int page_size, int64_t pages, int context_length);

  /// Checks a step and runs it. At most two steps may be under way. What the slices point to may go afterwards.
  /// @throws Error kInvalidRequest before anything ran; kEngineFailed
  void submit(const std::vector<ForwardSlice>& slices);

  /// Waits for the oldest step that was not collected. @return one result per slice, in order
  /// @throws Error kInvalidRequest when no step is under way; kEngineFailed
  std::vector<SliceResult> collect();

  const Model& model() const { return *model_; }
  std::string device_name() const { return ops_->device_name(); }
  int threads() const { return pool_.threads(); }
  int64_t weight_bytes() const;
  /// Bytes of weights that one decoded token reads; known once they are loaded.
  int64_t weight_bytes_per_token() const;
  int64_t kv_bytes_per_token() const;

 private:
  struct WantedRow {
    RowRequest request;
    int32_t row = 0;
    float* logprob = nullptr;
    int32_t* token = nullptr;
  };

  void collect_rows(const std::vector<ForwardSlice>& slices);
  void collect_wanted(const std::vector<ForwardSlice>& slices);
  void run_pass(int begin, int end);
  void want(int row, const ForwardSlice& slice, const ReportSpec& spec, int index, Report& report, WantedRow wanted);
  void evaluate_wanted(Step& step, int begin, int end);

  ThreadPool pool_;
  std::unique_ptr<Ops> ops_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<WeightSource> weights_;
  ParameterList parameters_;
  RopeTables rope_;
  KvCache cache_;
  int context_length_ = 0;

  // The step's rows and what is wanted of them, kept so that a step allocates next to nothing.
  std::vector<int32_t> host_tokens_, host_positions_, host_rows_;
  std::vector<int64_t> host_slots_;
  std::vector<AttentionSlice> slices_;
  std::vector<WantedRow> wanted_;
  std::vector<RowRequest> requests_;
  std::vector<SliceResult> results_;

  /// Results of the steps under way, the oldest first.
  std::deque<std::vector<SliceResult>> steps_;
  /// By slice of the last step: the token that it drew, or -1.
  std::vector<int32_t> drawn_;

  // Of the pass that runs.
  Workspace work_;
  std::vector<AttentionSlice> pass_slices_;
  size_t next_wanted_ = 0;
  DeviceArray<int32_t> tokens_, positions_, rows_;
  DeviceArray<int64_t> slots_;
  DeviceArray<float> logits_;
};

}  // namespace detinfer
