// A row on its way into shared memory: as it is, or adjusted, masked and divided.
#pragma once

#include "core/ptx.cuh"
#include "kernels/sampler/adjust.h"
#include "kernels/sampler/cluster_row.cuh"

namespace detinfer::sampler {

/// Instead of the best token: an element was not finite.
constexpr uint64_t kNotFinite = ~uint64_t(0);

__device__ inline float over(float x, float divisor) { return divisor == 1.0f ? x : x / divisor; }

/// Whether four elements can be read at once.
__device__ inline bool in_fours(const float* logits, int n) {
  return n % 4 == 0 && reinterpret_cast<uintptr_t>(logits) % 16 == 0;
}

/// Begins to bring the slice into shared memory, before it is known what for. The block is in step before it asks for any
/// of it. @param logits [n]
__device__ inline void begin_load(ClusterRow& row, const float* logits, int n) {
  row.arriving = in_fours(logits, n);
  if (!row.arriving || threadIdx.x != 0) return;
  const int parts = (row.count + kPart - 1) / kPart;
  for (int p = 0; p < parts; ++p) barrier_init(shared_address(&row.memory.arrived[p]), 1);
  barrier_init_done();
  for (int p = 0; p < parts; ++p) {
    const int at = p * kPart;
    const uint32_t bytes = uint32_t(min(kPart, row.count - at)) * sizeof(float);
    const uint32_t barrier = shared_address(&row.memory.arrived[p]);
    barrier_expect(barrier, bytes);
    bulk_load(shared_address(row.x + at), logits + row.first + at, bytes, barrier);
  }
}

/// Four elements of the slice from memory; past its end -infinity.
__device__ inline float4 read_four(const ClusterRow& row, const float* from, int at, bool fours) {
  if (fours) return *reinterpret_cast<const float4*>(from + at);
  const auto one = [&](int i) { return i < row.count ? from[i] : -kInfinity; };
  return make_float4(one(at), one(at + 1), one(at + 2), one(at + 3));
}

/// Penalties and biases on the elements in shared memory. Before and after it the block is in step.
__device__ inline void adjust(ClusterRow& row, const RowTask& task) {
  __syncthreads();
  for (int i = threadIdx.x; i < task.penalty_count; i += kThreads) {
    const unsigned at = unsigned(task.penalty_ids[i] - row.first);
    if (at >= unsigned(row.count)) continue;
    row.x[at] = penalised(row.x[at], task.frequency, task.presence, task.repetition, task.penalty_counts[i]);
  }
  __syncthreads();
  for (int i = threadIdx.x; i < task.bias_count; i += kThreads) {
    const int id = task.bias_ids[i];
    const unsigned at = unsigned(id - row.first);
    if (at >= unsigned(row.count) || (i > 0 && task.bias_ids[i - 1] == id)) continue;
    for (int j = i; j < task.bias_count && task.bias_ids[j] == id; ++j) {
      row.x[at] = biased(row.x[at], task.bias_values[j]);
    }
  }
  __syncthreads();
}

/// The row in shared memory becomes x / divisor, before that adjusted and masked as the task says when it is given.
/// @param logits [n] @return the best token, or kNotFinite
__device__ inline uint64_t load(ClusterRow& row, const float* logits, int n, float divisor, const RowTask* adjustments) {
  constexpr int kStep = kThreads * 4, kSteps = kPart / kStep;
  const float* const from = logits + row.first;
  const bool fours = in_fours(logits, n), arriving = row.arriving;
  const bool adjusts = adjustments && adjustments->adjusts();
  const uint32_t* const allowed = adjustments ? adjustments->allowed : nullptr;
  const bool changes = divisor != 1.0f || allowed;
  row.arriving = false;
  bool finite = true;
  float best = -kInfinity;
  int best_id = row.first + int(threadIdx.x) * 4;
  const auto store = [&](const float (&v)[4], int at) {
    *reinterpret_cast<float4*>(row.x + at) = make_float4(v[0], v[1], v[2], v[3]);
  };
  const auto prepare = [&](float (&v)[4], int at) {
    const int id = row.first + at;
    if (changes) {
      const uint32_t bits = allowed ? allowed[id / 32] >> (id % 32) : 15u;
#pragma unroll
      for (int i = 0; i < 4; ++i) v[i] = (bits >> i & 1) != 0 ? over(v[i], divisor) : -kInfinity;
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      best_id = v[i] > best ? id + i : best_id;
      best = fmaxf(best, v[i]);
    }
  };
  for (int part = 0; part * kPart < row.padded; ++part) {
    if (arriving) barrier_wait(shared_address(&row.memory.arrived[part]), 0);
    float v[kSteps][4];
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
      const int at = part * kPart + s * kStep + int(threadIdx.x) * 4;
      if (at >= row.padded) continue;
      const float4 four = arriving ? *reinterpret_cast<const float4*>(row.x + at) : read_four(row, from, at, fours);
      v[s][0] = four.x, v[s][1] = four.y, v[s][2] = four.z, v[s][3] = four.w;
    }
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
      const int at = part * kPart + s * kStep + int(threadIdx.x) * 4;
      if (at >= row.padded) continue;
#pragma unroll
      for (int i = 0; i < 4; ++i) finite = finite && (fabsf(v[s][i]) < kInfinity || at + i >= row.count);
      if (!adjusts) prepare(v[s], at);
      if (!arriving || (changes && !adjusts)) store(v[s], at);
    }
  }
  if (adjusts) {
    adjust(row, *adjustments);
    for (int at = int(threadIdx.x) * 4; at < row.padded; at += kStep) {
      const float4 four = *reinterpret_cast<const float4*>(row.x + at);
      float v[4] = {four.x, four.y, four.z, four.w};
      prepare(v, at);
      if (changes) store(v, at);
    }
  }
  uint64_t word = int(threadIdx.x) * 4 < row.padded ? rank_word(best, best_id) : 0;
  if (!finite) word = kNotFinite;
  return row.best_of(word);
}

}  // namespace detinfer::sampler
