// The draw from a row in shared memory (draw.h): noise for every token, but the exact score, which takes logarithms in f64,
// only for the few that an estimate leaves in the race.
#pragma once

#include "kernels/sampler/row_steps.cuh"

namespace detinfer::sampler {

/// Far above the rounding errors of the estimates below.
constexpr float kSlack = 1e-3f;

struct DrawRules {
  NoiseKey key;
  int32_t top_k;
  uint64_t mass_limit;
  uint64_t min_mass;
};

__device__ inline uint32_t hash_of(const NoiseKey& key, int id) {
  return murmur3_words(key.seed_low, key.seed_high, key.position, uint32_t(id));
}

/// At least d + noise but for kSlack. noise = -ln(-ln u) <= -ln(1 - u), and 1 - u is at least the upper 23 bits of the
/// hash's complement. @param d x - max
__device__ inline float score_bound(float d, uint32_t hash) {
  const float rest = bits_float(0x3F800000u | (~hash >> 9)) - 1.0f;
  float log2_rest;
  asm("lg2.approx.f32 %0, %1;" : "=f"(log2_rest) : "f"(rest));
  return fmaf(log2_rest, -0.69314718f, d);
}

/// d + noise within kSlack, or less.
__device__ inline float score_estimate(float d, uint32_t hash) {
  const float rest = (float(~hash) + 0.5f) * 2.3283064e-10f;  // 1 - u
  return d - logf(-log1pf(-rest));
}

__device__ inline double exact_score(float v, int id, const Softmax& softmax, const NoiseKey& key) {
  return double(softmax.logprob(v)) + gumbel_noise(key.seed_low, key.seed_high, key.position, uint32_t(id));
}

/// Orders like the score; above 0.
__device__ inline uint64_t score_word(double score) {
  const uint64_t bits = double_bits(score + 0.0);
  return bits >> 63 ? ~bits : bits | uint64_t(1) << 63;
}

/// The best so far: the larger score, of equal ones the lower id. score 0: none.
struct Winner {
  uint64_t score = 0;
  int id = 0x7FFFFFFF;

  __device__ void offer(uint64_t other_score, int other_id) {
    if (other_score > score || (other_score == score && other_id < id)) {
      score = other_score;
      id = other_id;
    }
  }
  __device__ void offer_lanes() {
    for (int step = 16; step > 0; step /= 2) {
      const uint64_t other_score = __shfl_xor_sync(~0u, score, step);
      const int other_id = __shfl_xor_sync(~0u, id, step);
      offer(other_score, other_id);
    }
  }
};

/// The best over the cluster of the tokens that precede `limit` and whose mass is large enough.
template <class Row>
__device__ Winner best_before(Row& row, uint64_t limit, const Softmax& softmax, const DrawRules& rules) {
  const float least = word_value(limit);
  const auto may_win = [&](float v, int id) {
    if (v < least || (v == least && rank_word(v, id) <= limit)) return false;
    return rules.min_mass == 0 || fixed_mass(v - softmax.max) >= rules.min_mass;
  };
  // This thread's largest bound and the one after it.
  float first = -kInfinity, second = -kInfinity;
  int first_id = -1;
  row.for_each([&](float v, int id) {
    if (!may_win(v, id)) return;
    const float bound = score_bound(v - softmax.max, hash_of(rules.key, id));
    second = fmaxf(second, fminf(first, bound));
    first_id = bound > first ? id : first_id;
    first = fmaxf(first, bound);
  });
  const auto value_of = [&](int id) { return row.x[id - row.first]; };

  float needed = -kInfinity;
  if (first_id >= 0) needed = score_estimate(value_of(first_id) - softmax.max, hash_of(rules.key, first_id));
  needed = row.block_max(needed) - 2.0f * kSlack;

  Winner winner;
  const auto enter = [&](int id) {
    winner.offer(score_word(exact_score(value_of(id), id, softmax, rules.key)), id);
  };
  if (second >= needed && second > -kInfinity) {
    row.for_each([&](float v, int id) {
      if (may_win(v, id) && score_bound(v - softmax.max, hash_of(rules.key, id)) >= needed) enter(id);
    });
  } else if (first >= needed && first_id >= 0) {
    enter(first_id);
  }
  winner.offer_lanes();

  auto& all = row.next_gathered();
  row.send(all[0], winner.score);
  row.send(all[1], uint64_t(winner.id));
  row.sync();
  for (int i = threadIdx.x % 32; i < Row::kAllWarps; i += 32) winner.offer(all[0][i], int(all[1][i]));
  winner.offer_lanes();
  return winner;
}

/// Draws as if there were no filter, and asks whether top-k and top-p keep that token: if so, it is the best of those that
/// they keep; if not, they keep only tokens before it, and it draws from those.
template <class Row>
__device__ int draw_by_rejection(Row& row, int n, const Softmax& softmax, const DrawRules& rules) {
  const bool cuts = rules.top_k < n || rules.mass_limit != ~uint64_t(0);
  for (uint64_t limit = 0;;) {
    const Winner winner = best_before(row, limit, softmax, rules);
    if (winner.score == 0) return 0;
    if (!cuts) return winner.id;
    const uint64_t word = row.word_of(winner.id);
    const float least = word_value(word);
    uint32_t high = 0, low = 0, before = 0;
    row.for_each([&](float v, int id) {
      const bool precedes = v > least || (v == least && id < winner.id);
      before += precedes;
      add_mass(precedes ? v - softmax.max : -kInfinity, high, low);
    });
    const auto sums = row.sums(before, (uint64_t(high) << 20) + low);
    if (int64_t(sums.a) < rules.top_k && sums.b <= rules.mass_limit) return winner.id;
    limit = word;
  }
}

/// Draws from block 0's list, which holds at least the top_k first tokens. For block 0 alone.
template <class Row>
__device__ int draw_from_list(Row& row, int found, const Softmax& softmax, const DrawRules& rules) {
  const uint64_t* const list = row.memory.list;
  uint64_t* const masses = row.memory.list_masses;
  for (int i = threadIdx.x; i < found; i += kThreads) masses[i] = fixed_mass(word_value(list[i]) - softmax.max);
  __syncthreads();
  Winner winner;
  for (int i = threadIdx.x; i < found; i += kThreads) {
    const uint64_t word = list[i];
    int rank = 0;
    uint64_t mass_before = 0;
    for (int j = 0; j < found; ++j) {
      if (list[j] <= word) continue;
      ++rank;
      mass_before += masses[j];
    }
    if (rank >= rules.top_k || mass_before > rules.mass_limit || masses[i] < rules.min_mass) continue;
    winner.offer(score_word(exact_score(word_value(word), word_id(word), softmax, rules.key)), word_id(word));
  }
  winner.offer_lanes();
  uint64_t* const scores = row.memory.warp_words[0];
  uint64_t* const ids = row.memory.warp_words[1];
  if (threadIdx.x % 32 == 0) {
    scores[threadIdx.x / 32] = winner.score;
    ids[threadIdx.x / 32] = uint64_t(winner.id);
  }
  __syncthreads();
  for (int i = 0; i < kWarps; ++i) winner.offer(scores[i], int(ids[i]));
  return winner.id;
}

/// The drawn token, known to block 0 at least. @param best the row's best token; memory.best is that of the same load
template <class Row>
__device__ int draw(Row& row, int n, uint64_t best, const Softmax& softmax, const DrawRules& rules) {
  if (rules.top_k == 1) return word_id(best);
  if (rules.top_k < n && rules.top_k <= Row::kAllWarps) {
    const int found = row.collect(row.bar(rules.top_k), ~uint64_t(0));
    if (found <= kListCapacity) return row.block == 0 ? draw_from_list(row, found, softmax, rules) : 0;
  }
  return draw_by_rejection(row, n, softmax, rules);
}

}  // namespace detinfer::sampler
