// One step's work for one sequence, and what comes out of it. The native side of ForwardSlice in lib/engine/types.ts.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "kernels/sampler/sampler.h"

namespace detinfer {

/// Most likely and given tokens whose log-probabilities are reported at a row.
struct ReportSpec {
  int top = 0;
  const int32_t* token_ids = nullptr;
  int token_id_count = 0;

  bool is_empty() const { return top == 0 && token_id_count == 0; }
};

struct ScoreSpec {
  /// Index of the first scored row within the slice.
  int first_row = 0;
  /// targets[i] follows row first_row + i.
  const int32_t* targets = nullptr;
  int target_count = 0;
  ReportSpec report;
};

struct SampleSpec {
  SampleArgs args;
  /// Words of args.allowed.
  int allowed_words = 0;
  /// The drawn token's log-probability is wanted.
  bool logprob = false;
  ReportSpec report;
};

/// No slice may read keys that another one of its step makes: a device may run them at the same time.
struct ForwardSlice {
  /// The last one may be -1 - j: the token that slice j of the step before draws.
  const int32_t* tokens = nullptr;
  int token_count = 0;
  /// Absolute position of tokens[0].
  int start = 0;
  const int32_t* pages = nullptr;
  int page_count = 0;
  float logprob_temperature = 1.0f;
  std::optional<ScoreSpec> score;
  std::optional<SampleSpec> sample;
};

/// Log-probabilities of some rows, row-major.
struct Report {
  std::vector<float> logprobs;
  std::vector<float> top_logprobs;
  std::vector<int32_t> top_ids;
  std::vector<float> token_id_logprobs;
};

struct SliceResult {
  int32_t token = -1;
  /// One row; there if the slice draws and asks for one.
  std::optional<Report> sampled;
  /// There if the slice is scored.
  std::optional<Report> scored;
};

/// What a slice may refer to.
struct SliceLimits {
  int vocab_size = 0;
  int context_length = 0;
  int page_size = 0;
  int64_t pages = 0;
  /// Whether a slice of the step before draws a token; null: there was none.
  std::function<bool(int)> is_drawn;
};

/// @throws Error kInvalidRequest naming the slice and what is wrong with it
void check_slices(const std::vector<ForwardSlice>& slices, const SliceLimits& limits);

}  // namespace detinfer
