// From a row of logits to log-probabilities and a token.
//   Reported: log_softmax(logits / logprob_temperature), before everything below.
//   Sampling: penalties in this order on tokens that were output before: logit -= frequency · count; logit -= presence;
//   logit = logit > 0 ? logit / repetition : logit · repetition. Then biases are added, and what exceeds 1e30 is cut to
//   it. A token that is not allowed becomes -infinity: it has no mass and ranks last. Greedy: the largest, ties to the
//   lower id. Otherwise the logits are divided by the temperature, the filters apply to their order, and the token is
//   the argmax of log-softmax + Gumbel noise over what is left.
//   Filters: the token at rank r is kept iff r < top_k, the mass before it is at most uint64(top_p · total), and its
//   own is at least uint64(min_p · mass of the best).
// Every step is f32 rounded at once; masses are integers (softmax.h). A row's result depends on nothing but the row.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/sampler/draw.h"

namespace detinfer {

class ThreadPool;

/// Tokens that were output before, each once. count 0: no penalty.
struct PenaltyArgs {
  float frequency = 0.0f;
  float presence = 0.0f;
  float repetition = 1.0f;
  const int32_t* ids = nullptr;
  const int32_t* counts = nullptr;
  int count = 0;
};

struct SampleArgs {
  bool greedy = false;
  float temperature = 1.0f;
  /// -1: no limit.
  int64_t top_k = -1;
  double top_p = 1.0;
  double min_p = 0.0;
  NoiseKey key;
  const int32_t* bias_ids = nullptr;
  const float* bias_values = nullptr;
  int bias_count = 0;
  PenaltyArgs penalties;
  /// [ceil(n/32)], bit i%32 of word i/32: token i may be drawn; null: all
  const uint32_t* allowed = nullptr;

  bool adjusts() const { return bias_count > 0 || penalties.count > 0 || allowed != nullptr; }
};

/// What is wanted of a row, and where it goes.
struct RowRequest {
  float logprob_temperature = 1.0f;
  /// A token whose log-probability is wanted, or -1.
  int32_t target = -1;
  /// Draws a token, or null.
  const SampleArgs* sample = nullptr;
  /// Where the drawn token goes in the device's array of drawn tokens, which the next step may read; -1: nowhere.
  int32_t drawn_index = -1;
  /// The drawn token's log-probability is wanted.
  bool sampled_logprob = false;
  int top = 0;
  const int32_t* token_ids = nullptr;
  int token_id_count = 0;

  int32_t token = -1;
  /// Of the target or the drawn token.
  float logprob = NAN;
  /// [top]
  float* top_logprobs = nullptr;
  int32_t* top_ids = nullptr;
  /// [token_id_count]
  float* token_id_logprobs = nullptr;
};

/// The readable reference for one row. @param logits [n]
void evaluate_row_reference(const float* logits, int n, RowRequest& request);

/// The fast path. @param logits [rows][n] @throws Error kEngineFailed for an infinite or NaN logit
void evaluate_rows_cpu(ThreadPool& pool, const float* logits, int rows, int n, RowRequest* requests);

}  // namespace detinfer
