// The draw from a row in shared memory (draw.h): noise for every token, but the exact score, which takes logarithms in
// f64, only for the few that an estimate leaves in the race.
#pragma once

#include "kernels/sampler/adjust.h"
#include "kernels/sampler/row_softmax.cuh"

namespace detinfer::sampler {

/// Far above the rounding errors of the estimates below.
constexpr float kSlack = 1e-3f;

struct DrawRules {
  NoiseKey key;
  int32_t top_k;
  double top_p;
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
  /// Its rank_word.
  uint64_t word = 0;

  __device__ void offer(uint64_t other_score, uint64_t other_word) {
    if (other_score > score || (other_score == score && word_id(other_word) < word_id(word))) {
      score = other_score;
      word = other_word;
    }
  }
  __device__ void enter(uint64_t token, const Softmax& softmax, const NoiseKey& key) {
    offer(score_word(exact_score(word_value(token), word_id(token), softmax, key)), token);
  }
  __device__ void offer_lanes() {
    for (int step = 16; step > 0; step /= 2) {
      const uint64_t other_score = __shfl_xor_sync(~0u, score, step);
      const uint64_t other_word = __shfl_xor_sync(~0u, word, step);
      offer(other_score, other_word);
    }
  }
};

/// The best over the cluster of the tokens that precede `limit` and whose mass is large enough.
/// @tparam kEveryToken all tokens do @tparam kSums `softmax` has its max only, and gets the rest in the same pass
template <bool kEveryToken, bool kSums>
__device__ Winner best_before(ClusterRow& row, uint64_t limit, Softmax& softmax, const DrawRules& rules) {
  const float least = word_value(limit), max = softmax.max;
  const int limit_id = word_id(limit);
  const auto bound_of = [&](float v, int id) {
    float bound = score_bound(v - max, hash_of(rules.key, id));
    if (!kEveryToken) {
      bool may_win = v > least || (v == least && id < limit_id) || limit == 0;
      if (rules.min_mass > 0) may_win = may_win && fixed_mass(v - max) >= rules.min_mass;
      bound = may_win ? bound : -kInfinity;
    }
    return bound;
  };
  // This thread's largest bound and the one after it. The bound of a token of -infinity may be NaN, which never leads.
  float first = -kInfinity, second = -kInfinity;
  int first_id = -1;
  MassSum mass;
  row.for_each([&](float v, int id) {
    if (kSums) mass.add(v - max);
    const float bound = bound_of(v, id);
    first_id = bound > first ? id : first_id;
    second = fmaxf(second, fminf(first, bound));
    first = fmaxf(first, bound);
  });

  const auto value_of = [&](int id) { return row.x[id - row.first]; };
  float estimate = -kInfinity;
  if (first_id >= 0) estimate = score_estimate(value_of(first_id) - max, hash_of(rules.key, first_id));
  auto& found = row.next_gathered();
  row.send(found[0], warp_max(rank_word(estimate, 0)));
  if (kSums) row.send(found[1], warp_sum(mass.total()));
  row.sync();
  const float needed = word_value(row.max_of(found[0])) - 2.0f * kSlack;
  if (kSums) softmax = softmax_of(max, row.sum_of(found[1]));

  Winner winner;
  const auto enter = [&](float v, int id) { winner.enter(rank_word(v, id), softmax, rules.key); };
  if (second >= needed && second > -kInfinity) {
    row.for_each([&](float v, int id) {
      if (bound_of(v, id) >= needed) enter(v, id);
    });
  } else if (first >= needed && first_id >= 0) {
    enter(value_of(first_id), first_id);
  }
  winner.offer_lanes();
  auto& winners = row.next_gathered();
  row.send(winners[0], winner.score);
  row.send(winners[1], winner.word);
  row.sync();
  for (int i = threadIdx.x % 32; i < kAllWarps; i += 32) winner.offer(winners[0][i], winners[1][i]);
  winner.offer_lanes();
  return winner;
}

/// Whether top-k and top-p keep the token.
__device__ inline bool is_kept(ClusterRow& row, uint64_t word, const Softmax& softmax, const DrawRules& rules) {
  const float value = word_value(word);
  const int word_of = word_id(word);
  MassSum mass;
  uint32_t before = 0;
  row.for_each([&](float v, int id) {
    const bool precedes = v > value || (v == value && id < word_of);
    before += precedes;
    mass.add(precedes ? v - softmax.max : -kInfinity);
  });
  const auto sums = row.sums(before, mass.total());
  return int64_t(sums.a) < rules.top_k && sums.b <= top_p_limit(rules.top_p, softmax.total);
}

/// Draws as if there were no top-k and top-p, and asks whether they keep that token: if so, it is the best of what they
/// keep; if not, they keep only tokens before it, and it draws from those.
/// @param summed whether `softmax` has more than its max
__device__ inline int draw_by_rejection(ClusterRow& row, int n, Softmax& softmax, bool summed, const DrawRules& rules) {
  Winner winner;
  if (rules.min_mass > 0) {
    int none;
    if (!summed) softmax = softmax_and_list(row, softmax.max, Collector::kNothing, none);
    winner = best_before<false, false>(row, 0, softmax, rules);
  } else {
    winner = summed ? best_before<true, false>(row, 0, softmax, rules)
                    : best_before<true, true>(row, 0, softmax, rules);
  }
  const bool cuts = rules.top_k < n || rules.top_p < 1.0;
  while (cuts && winner.score != 0 && !is_kept(row, winner.word, softmax, rules)) {
    winner = best_before<false, false>(row, winner.word, softmax, rules);
  }
  return winner.score == 0 ? 0 : word_id(winner.word);
}

/// Draws from block 0's list, which holds at least the top_k first tokens. For block 0 alone.
__device__ inline int draw_from_list(ClusterRow& row, int found, const Softmax& softmax, const DrawRules& rules) {
  const uint64_t* const list = row.memory.list;
  uint64_t* const masses = row.memory.list_masses;
  for (int i = threadIdx.x; i < found; i += kThreads) masses[i] = fixed_mass(word_value(list[i]) - softmax.max);
  __syncthreads();
  const uint64_t mass_limit = top_p_limit(rules.top_p, softmax.total);
  Winner winner;
  for (int i = threadIdx.x; i < found; i += kThreads) {
    const uint64_t word = list[i];
    int rank = 0;
    uint64_t mass_before = 0;
#pragma unroll 4
    for (int j = 0; j < found; ++j) {
      const bool precedes = list[j] > word;
      rank += precedes;
      mass_before += precedes ? masses[j] : 0;
    }
    if (rank >= rules.top_k || mass_before > mass_limit || masses[i] < rules.min_mass) continue;
    winner.enter(word, softmax, rules.key);
  }
  winner.offer_lanes();
  uint64_t* const scores = row.memory.warp_words[0];
  uint64_t* const words = row.memory.warp_words[1];
  if (threadIdx.x % 32 == 0) {
    scores[threadIdx.x / 32] = winner.score;
    words[threadIdx.x / 32] = winner.word;
  }
  __syncthreads();
  for (int i = 0; i < kWarps; ++i) winner.offer(scores[i], words[i]);
  return word_id(winner.word);
}

/// The drawn token, known to block 0 at least. memory.best is that of the row as it is drawn from.
/// @param best the row's best token @param reported the softmax of the same row, or null
__device__ inline int draw(ClusterRow& row, int n, uint64_t best, const Softmax* reported, const DrawRules& rules) {
  if (rules.top_k == 1) return word_id(best);
  Softmax softmax;
  if (reported) softmax = *reported;
  softmax.max = word_value(best);
  bool summed = reported != nullptr;
  if (rules.top_k < n && rules.top_k <= kAllWarps) {
    const uint64_t last = row.bar(rules.top_k);
    int found;
    if (summed) {
      found = list_tokens(row, last, ~uint64_t(0));
    } else {
      softmax = softmax_and_list(row, softmax.max, last, found);
    }
    summed = true;
    if (found <= kListCapacity) return row.block == 0 ? draw_from_list(row, found, softmax, rules) : 0;
  }
  return draw_by_rejection(row, n, softmax, summed, rules);
}

}  // namespace detinfer::sampler
