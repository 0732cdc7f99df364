// A step under way: its rows, which of them are wanted for what, and its results once it is collected.
#pragma once

#include <vector>

#include "engine/slice.h"
#include "kernels/ops.h"

namespace detinfer {

/// A run of consecutive rows of a step, within the limits of a pass.
struct Pass {
  int begin = 0;
  int end = 0;
  /// In rows of the pass.
  std::vector<AttentionSlice> slices;
  bool only_decodes = false;
};

class Submission {
 public:
  /// Takes in the slices. What their tokens point to is copied; what their scores, samples and pages point to is read
  /// until the last pass has been run.
  void start(const std::vector<ForwardSlice>& slices, int page_size);

  /// Takes the next rows off the step. @return false when there are none
  bool next_pass(const PassLimits& limits, Pass& pass);

  /// Wanted rows that come next, are below row `end` and are no more than `limit`.
  int wanted_count(int end, int limit) const;
  /// Takes `count` wanted rows off the step. @param first_row of the pass @param rows gets their places in the pass
  RowRequest* take_wanted(int count, int first_row, std::vector<int32_t>& rows);

  /// Notes that `ops` was asked for the wanted rows that were taken last.
  void requested(int call, int count) { calls_.push_back({call, next_wanted_ - count, count}); }

  /// Gets the results from `ops`, once the device is done. @throws Error kEngineFailed
  const std::vector<SliceResult>& finish(Ops& ops);

  int slice_count() const { return int(slices_.size()); }
  bool draws(int slice) const { return draws_[slice]; }

  /// Of all rows.
  std::vector<int32_t> tokens, positions;
  std::vector<int64_t> slots;
  /// Behind which the step is done.
  int64_t mark = 0;

 private:
  struct Wanted {
    int32_t row = 0;
    float* logprob = nullptr;
    int32_t* token = nullptr;
  };
  struct Call {
    int id;
    int first;
    int count;
  };

  void collect_wanted(const std::vector<ForwardSlice>& slices);
  /// @param report null: nothing is asked for but the token
  void want(int row, const ForwardSlice& slice, const ReportSpec& spec, int index, Report* report, RowRequest request,
            int32_t* token);

  std::vector<AttentionSlice> slices_;
  std::vector<char> draws_;
  std::vector<Wanted> wanted_;
  std::vector<RowRequest> requests_;
  std::vector<SliceResult> results_;
  std::vector<Call> calls_;
  int next_row_ = 0;
  size_t next_slice_ = 0;
  int next_wanted_ = 0;
};

}  // namespace detinfer
