// Steps on a row: loading it as it is or adjusted, the softmax over it, its first tokens in order.
#pragma once

#include "kernels/sampler/adjust.h"
#include "kernels/sampler/cluster_row.cuh"
#include "kernels/sampler/sampler_table.cuh"

namespace detinfer::sampler {

constexpr float kInfinity = __builtin_huge_valf();
/// Instead of the best token: an element was not finite.
constexpr uint64_t kNotFinite = ~uint64_t(0);

/// fixed_mass(d) in two sums, of units of 2^-20 and of 2^-40, without a conversion to an integer: those run at a quarter
/// of the rate. For d <= 0; below -30 the mass is 0 like that of -30. The steps are those of exp_f32.
__device__ inline void add_mass(float d, uint32_t& high, uint32_t& low) {
  const float c = fmaxf(d, -30.0f);
  const float kRound = 12582912.0f;
  const float shifted = fmaf(c, 1.44269504f, kRound);
  const float n = shifted - kRound;
  float r = fmaf(n, -0.693145752f, c);
  r = fmaf(n, -1.42860677e-6f, r);
  float p = fmaf(0.00139505381f, r, 0.00836891774f);
  p = fmaf(p, r, 0.041666206f);
  p = fmaf(p, r, 0.166665182f);
  p = fmaf(p, r, 0.5f);
  p = fmaf(p, r, 1.0f);
  p = fmaf(p, r, 1.0f);
  const float w = bits_float(float_bits(p) + (float_bits(shifted) << 23));  // exact: far from the subnormals
  // Adding 2^23 toward zero cuts what is below 2^23 to an integer, in the low bits of the sum.
  const float kCut = 8388608.0f;
  const float scaled = w * 1048576.0f;
  const float whole = __fadd_rz(scaled, kCut);
  const float rest = __fadd_rz((scaled - (whole - kCut)) * 1048576.0f, kCut);
  high += float_bits(whole) - 0x4B000000u;
  low += float_bits(rest) - 0x4B000000u;
}

__device__ inline float over(float x, float divisor) { return divisor == 1.0f ? x : x / divisor; }

/// Four elements of this block's slice from memory; past its end -infinity.
template <class Row>
__device__ float4 read_four(const Row& row, const float* from, int at, bool aligned) {
  if (aligned) return *reinterpret_cast<const float4*>(from + at);
  const auto one = [&](int i) { return i < row.count ? from[i] : -kInfinity; };
  return make_float4(one(at), one(at + 1), one(at + 2), one(at + 3));
}

/// Penalties and biases on the elements in shared memory. Before and after it the block is in step.
template <class Row>
__device__ void adjust(Row& row, const RowTask& task) {
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
    for (int j = i; j < task.bias_count && task.bias_ids[j] == id; ++j) row.x[at] = biased(row.x[at], task.bias_values[j]);
  }
  __syncthreads();
}

/// Reads this block's slice of the row, in the form x / divisor, before that adjusted and masked as the task says when it is
/// given. @param logits [n] @return the best token, or kNotFinite
template <class Row>
__device__ uint64_t load(Row& row, const float* logits, int n, float divisor, const RowTask* adjustments) {
  const float* const from = logits + row.first;
  const bool aligned = n % 4 == 0 && reinterpret_cast<uintptr_t>(logits) % 16 == 0;
  const bool adjusts = adjustments && adjustments->adjusts();
  const uint32_t* const allowed = adjustments ? adjustments->allowed : nullptr;
  bool finite = true;
  float best = -kInfinity;
  int best_id = row.first + int(threadIdx.x) * 4;
  const auto prepare = [&](float4 v, int at) {
    const int id = row.first + at;
    const uint32_t bits = allowed ? allowed[id / 32] >> (id % 32) : 15u;
    const auto one = [&](float value, int i) {
      value = (bits >> i & 1) != 0 ? over(value, divisor) : -kInfinity;
      if (value > best) {
        best = value;
        best_id = id + i;
      }
      return value;
    };
    *reinterpret_cast<float4*>(row.x + at) = make_float4(one(v.x, 0), one(v.y, 1), one(v.z, 2), one(v.w, 3));
  };
  constexpr int kBatch = 5, kStep = kThreads * 4;
  for (int start = int(threadIdx.x) * 4; start < row.padded; start += kStep * kBatch) {
    float4 v[kBatch];
#pragma unroll
    for (int b = 0; b < kBatch; ++b) {
      const int at = start + b * kStep;
      if (at < row.padded) v[b] = read_four(row, from, at, aligned);
    }
#pragma unroll
    for (int b = 0; b < kBatch; ++b) {
      const int at = start + b * kStep;
      if (at >= row.padded) continue;
      const float one[4] = {v[b].x, v[b].y, v[b].z, v[b].w};
#pragma unroll
      for (int i = 0; i < 4; ++i) finite = finite && (fabsf(one[i]) < kInfinity || at + i >= row.count);
      if (adjusts) {
        *reinterpret_cast<float4*>(row.x + at) = v[b];
      } else {
        prepare(v[b], at);
      }
    }
  }
  if (adjusts) {
    adjust(row, *adjustments);
    for (int at = int(threadIdx.x) * 4; at < row.padded; at += kStep) {
      prepare(*reinterpret_cast<const float4*>(row.x + at), at);
    }
  }
  uint64_t word = int(threadIdx.x) * 4 < row.padded ? rank_word(best, best_id) : 0;
  if (!finite) word = kNotFinite;
  return row.best_of(word);
}

/// Of the row in shared memory, whose largest element is `max`.
template <class Row>
__device__ Softmax softmax(Row& row, float max) {
  uint32_t high = 0, low = 0;
  row.for_each([&](float v, int) { add_mass(v - max, high, low); });
  Softmax result;
  result.max = max;
  result.total = row.sum((uint64_t(high) << 20) + low);
  result.log_total = log_f64(double(result.total) * kMassUnit);
  return result;
}

/// A token such that those from it up to, but without, `limit` are at most kListCapacity and at least one, if there is one.
template <class Row>
__device__ uint64_t next_bar(Row& row, uint64_t limit) {
  uint64_t last = 0;
  for (int bit = 63; bit >= 0; --bit) {
    const uint64_t trial = last | uint64_t(1) << bit;
    if (trial >= limit) continue;
    uint64_t found = 0;
    row.for_each([&](float v, int id) {
      const uint64_t word = rank_word(v, id);
      found += word >= trial && word < limit;
    });
    found = row.sum(found);
    if (found >= kListCapacity) last = trial;
    if (found == kListCapacity) break;
  }
  return last;
}

/// The first task.top tokens of the row in order.
template <class Row>
__device__ void write_top(Row& row, const RowTask& task, const Softmax& softmax) {
  uint64_t limit = ~uint64_t(0);
  for (int written = 0; written < task.top;) {
    uint64_t last = 0;
    int found = kListCapacity + 1;
    if (written == 0 && task.top <= Row::kAllWarps) {
      last = row.bar(task.top);
      found = row.collect(last, limit);
    }
    if (found > kListCapacity) {
      last = next_bar(row, limit);
      found = row.collect(last, limit);
    }
    if (row.block == 0) {
      for (int i = threadIdx.x; i < found; i += kThreads) {
        const uint64_t word = row.memory.list[i];
        int at = written;
        for (int j = 0; j < found; ++j) at += row.memory.list[j] > word;
        if (at >= task.top) continue;
        task.top_ids[at] = word_id(word);
        task.top_logprobs[at] = softmax.logprob(word_value(word));
      }
    }
    written += found;
    limit = last;
  }
}

}  // namespace detinfer::sampler
