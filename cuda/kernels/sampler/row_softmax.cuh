// The softmax over a row in shared memory, and the row's first tokens in order.
#pragma once

#include "kernels/sampler/cluster_row.cuh"

namespace detinfer::sampler {

/// A sum of fixed_mass(d), d <= 0, over at most 4096 tokens.
class MassSum {
 public:
  /// The steps are those of exp_f32; below -30 the mass is 0 like that of -30. Without a conversion to an integer: those
  /// run at a fraction of the rate.
  __device__ void add(float d) {
    const float c = fmaxf(d, -30.0f);
    // 1.5·2^23, and 20 more: the low bits become the exponent of w·2^20.
    const ReducedExp e = reduce_exp(c, 12582912.0f + 20.0f);
    const float scaled = bits_float(float_bits(e.fraction) + (float_bits(e.shifted) << 23));
    // Adding 2^23 toward zero cuts what is below 2^23 to an integer, in the low bits of the sum. All else is exact.
    const float kCut = 8388608.0f;
    const float whole = __fadd_rz(scaled, kCut);
    const float rest = __fmaf_rz(scaled - (whole - kCut), 1048576.0f, kCut);
    high_ += float_bits(whole) - 0x4B000000u;
    low_ += float_bits(rest) - 0x4B000000u;
  }
  __device__ uint64_t total() const { return (uint64_t(high_) << 20) + low_; }

 private:
  /// In units of 2^-20 and of 2^-40.
  uint32_t high_ = 0, low_ = 0;
};

__device__ inline Softmax softmax_of(float max, uint64_t total) {
  Softmax result;
  result.max = max;
  result.total = total;
  result.log_total = log_f64(double(total) * kMassUnit);
  return result;
}

/// The softmax of the row, whose largest element is `max`, and in the same pass the tokens from `last` on to block 0's
/// list. @param last Collector::kNothing: no list @param found how many tokens those are; the list has no more than its
/// capacity
__device__ inline Softmax softmax_and_list(ClusterRow& row, float max, uint64_t last, int& found) {
  MassSum mass;
  Collector collector(row, last, ~uint64_t(0));
  row.for_each_four([&](const float(&v)[4], int id) {
#pragma unroll
    for (int i = 0; i < 4; ++i) mass.add(v[i] - max);
    collector.offer(v, id);
  });
  const auto sums = row.sums(mass.total(), collector.found);
  found = int(sums.b);
  return softmax_of(max, sums.a);
}

/// The tokens from `last` up to, but without, `limit` to block 0's list. @return how many tokens those are
__device__ inline int list_tokens(ClusterRow& row, uint64_t last, uint64_t limit) {
  Collector collector(row, last, limit);
  row.for_each_four([&](const float(&v)[4], int id) { collector.offer(v, id); });
  return int(row.sums(collector.found, 0).a);
}

/// The token such that kListCapacity tokens are it or lie between it and `limit`; if there are fewer, 0: all of them.
__device__ inline uint64_t next_bar(ClusterRow& row, uint64_t limit) {
  uint64_t last = 0;
  for (int bit = 63; bit >= 0; --bit) {
    const uint64_t trial = last | uint64_t(1) << bit;
    if (trial >= limit) continue;
    uint64_t found = 0;
    row.for_each([&](float v, int id) {
      const uint64_t word = rank_word(v, id);
      found += word >= trial && word < limit;
    });
    found = row.sums(found, 0).a;
    if (found >= kListCapacity) last = trial;
    if (found == kListCapacity) break;
  }
  return last;
}

/// The first task.top tokens of the row in order. @param last @param found the list that block 0 has already: so many
/// tokens from `last` on, at least task.top unless they are more than its capacity
__device__ inline void write_top(ClusterRow& row, const RowTask& task, const Softmax& softmax, uint64_t last, int found) {
  uint64_t limit = ~uint64_t(0);
  for (int written = 0; written < task.top;) {
    if (found > kListCapacity) {
      last = next_bar(row, limit);
      found = list_tokens(row, last, limit);
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
    found = kListCapacity + 1;
  }
}

}  // namespace detinfer::sampler
