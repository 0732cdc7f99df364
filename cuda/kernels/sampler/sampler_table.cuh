// What send() tells the kernel about each row, and what the kernel answers. Pointers are into the device's memory.
#pragma once

#include <cstdint>

#include "kernels/sampler/draw.h"

namespace detinfer::sampler {

struct RowResult {
  int32_t token;
  float logprob;
  /// 0: the row holds an infinity or a NaN, and nothing else was written for it.
  int32_t finite;
};

struct RowTask {
  // Reported.
  float logprob_temperature;
  int32_t target;
  int32_t top;
  int32_t token_id_count;
  const int32_t* token_ids;
  bool reports;
  bool sampled_logprob;

  // Drawn.
  bool samples;
  bool greedy;
  float temperature;
  /// 1 … vocabulary
  int32_t top_k;
  double top_p;
  uint64_t min_mass;
  NoiseKey key;
  int32_t drawn_index;
  /// Null: every token may be drawn.
  const uint32_t* allowed;
  float frequency, presence, repetition;
  int32_t penalty_count;
  const int32_t* penalty_ids;
  const int32_t* penalty_counts;
  /// Entries of one token stand together, in the order in which they apply.
  const int32_t* bias_ids;
  const float* bias_values;
  int32_t bias_count;

  RowResult* result;
  float* top_logprobs;
  int32_t* top_ids;
  float* token_id_logprobs;

  __host__ __device__ bool adjusts() const { return penalty_count > 0 || bias_count > 0; }
  /// Whether what is drawn from is what is reported: logits over one temperature.
  __host__ __device__ bool draws_from_reported() const {
    return reports && !adjusts() && !allowed && (greedy ? 1.0f : temperature) == logprob_temperature;
  }
};

/// At a fixed address of the device; followed by the tasks.
struct TableHeader {
  int32_t count;
  int32_t padding[3];
};

/// Launches the kernel for `rows` rows; those beyond the table's count are left alone.
void launch_sampler(const TableHeader* table, const float* logits, int vocab, int rows, int32_t* drawn,
                    cudaStream_t stream);

/// Lets the kernels use the memory that they need. @throws Error kUnsupported for a vocabulary that is too large
void prepare_sampler(int vocab);

}  // namespace detinfer::sampler
