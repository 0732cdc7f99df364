// The inner loops of attention on a CPU, for any vector type; compiled once per instruction set (attention_<isa>.cpp).
// Scores have keys in the lanes and weighted sums have dimensions, so every chain stays in one lane.
#pragma once

#include <algorithm>
#include <cmath>

#include "kernels/attention/attention_tile.h"
#include "kernels/attention/merge.h"
#include "kernels/attention/weight.h"
#include "kernels/linear/k16_chain.h"

namespace detinfer {

template <class V>
class AttentionKernel {
 public:
  AttentionKernel(const AttentionTile& tile, AttentionScratch& scratch)
      : tile_(tile), s_(scratch), queries_(tile.queries()), dim_(tile.layout.head_dim) {}

  void run() {
    prepare_queries();
    const float scale = attention_scale(dim_);
    const int last = tile_.start + tile_.positions - 1;
    std::fill_n(s_.total.begin(), queries_ * dim_, 0.0f);
    std::fill_n(s_.total_sums.begin(), queries_, 0.0f);
    std::fill_n(s_.total_maxima.begin(), queries_, -INFINITY);
    for (int split = 0; split <= last; split += kSplitKeys) {
      // Queries are ordered by position, so those that see a key at all are the last ones.
      const int first = first_query_that_sees(split);
      std::fill_n(s_.acc.begin(), queries_ * dim_, 0.0f);
      std::fill_n(s_.sums.begin(), queries_, 0.0f);
      std::fill_n(s_.maxima.begin(), queries_, -INFINITY);
      for (int block = split; block < split + kSplitKeys && block <= last; block += kBlockKeys) {
        run_block(block, first_query_that_sees(block), std::min(kBlockKeys, last + 1 - block), scale);
      }
      for (int i = first; i < queries_; ++i) {
        merge_split(s_.total_maxima[i], s_.total_sums[i], &s_.total[i * dim_], s_.maxima[i], s_.sums[i],
                    &s_.acc[i * dim_], dim_);
      }
    }
    for (int i = 0; i < queries_; ++i) {
      const float inverse = 1.0f / s_.total_sums[i];
      bf16* out = tile_.out + tile_.query_offset(i);
      for (int d = 0; d < dim_; ++d) out[d] = to_bf16(s_.total[i * dim_ + d] * inverse);
    }
  }

 private:
  static constexpr int kGroupsPer16 = 16 / V::kLanes;
  static constexpr int kQueriesAtOnce = 4;
  static constexpr int kGroupsAtOnce = 4;

  void prepare_queries() {
    for (int i = 0; i < queries_; ++i) {
      const bf16* q = tile_.q + tile_.query_offset(i);
      s_.q_bounds[i] = prepare_chain_row(q, dim_, dim_, &s_.q_values[i * dim_], &s_.q_exponents[i * dim_ / 2]);
    }
  }

  int first_query_that_sees(int key) const {
    return std::clamp((key - tile_.start) * tile_.group, 0, queries_);
  }

  /// @param first first query that sees a key of the block @param keys keys of the block that any query sees
  void run_block(int block, int first, int keys, float scale) {
    const int key_groups = (keys + 15) / 16;
    for_queries(first, [&](auto count, int i) { this->template scores<decltype(count)::value>(block, key_groups, i); });
    bool safe = true;
    for (int i = first; i < queries_; ++i) safe &= weigh(block, i, key_groups * 16, scale);
    const int value_bound = safe ? 0 : bound(tile_.values, block, key_groups);
    for_queries(first, [&](auto count, int i) {
      this->template weighted_sums<decltype(count)::value>(block, key_groups, i, value_bound);
    });
  }

  /// Calls body(count, i) for runs of queries, rounding toward zero; `count` is a compile-time 4, 2 or 1. The bodies
  /// call functions that are never inlined, so that the compiler can't move a conversion past the change of mode.
  template <class Body>
  void for_queries(int first, const Body& body) {
    const typename V::RoundTowardZero rounding{};
    (void)rounding;
    int i = first;
    for (; i + kQueriesAtOnce <= queries_; i += kQueriesAtOnce) body(std::integral_constant<int, kQueriesAtOnce>(), i);
    for (; i + 2 <= queries_; i += 2) body(std::integral_constant<int, 2>(), i);
    for (; i < queries_; ++i) body(std::integral_constant<int, 1>(), i);
  }

  /// Largest exponent field among the keys or values of a block.
  int bound(const bf16* pool, int block, int key_groups) const {
    typename V::Int largest = V::zero();
    for (int g = 0; g < key_groups; ++g) {
      const uint32_t* p = tile_.group_of(pool, block / 16 + g);
      for (int j = 0; j < 8 * dim_; j += V::kLanes) {
        largest = V::max16(largest, V::bit_and(V::load(p + j), V::set(0x7F807F80u)));
      }
    }
    uint32_t lanes[V::kLanes], result = 0;
    V::store(lanes, V::max16(largest, V::swap16(largest)));
    for (uint32_t lane : lanes) result = std::max(result, lane & 0xFFFF);
    return int(result >> 7);
  }

  /// Scores of queries i … i+R-1 against the block's keys.
  template <int R>
  __attribute__((noinline)) void scores(int block, int key_groups, int i) {
    const int steps = dim_ / kStepTerms;
    const float* values[R];
    const uint32_t* exponents[R];
    int q_bound = 0, smallest = 255;
    for (int r = 0; r < R; ++r) {
      values[r] = &s_.q_values[(i + r) * dim_];
      exponents[r] = &s_.q_exponents[(i + r) * dim_ / 2];
      q_bound = std::max(q_bound, s_.q_bounds[i + r]);
      for (int d = 0; d < dim_ / 2; ++d) {
        smallest = std::min({smallest, int(exponents[r][d] >> 23), int(exponents[r][d] & 0xFFFF) >> 7});
      }
    }
    const int key_bound = smallest >= kSafeExponent ? 0 : bound(tile_.keys, block, key_groups);
    const int groups = key_groups * kGroupsPer16;
    for (int g = 0; g < groups;) {
      if constexpr (R == 1) {
        if (g + kGroupsAtOnce <= groups) {
          one_query_scores<kGroupsAtOnce>(block, g, i, q_bound, key_bound);
          g += kGroupsAtOnce;
          continue;
        }
      }
      typename V::Float acc[R];
      StepCheck<V> check;
      for (int r = 0; r < R; ++r) acc[r] = V::set(0.0f);
      chain_rows<V, R>(key_lanes(block, g), 16, steps, values, exponents, acc, check);
      store_scores<R>(block, g, i, acc, check.failed_lanes(q_bound, key_bound));
      ++g;
    }
  }

  template <int G>
  void one_query_scores(int block, int g, int i, int q_bound, int key_bound) {
    const uint32_t* keys[G];
    typename V::Float acc[G];
    StepCheck<V> check;
    for (int n = 0; n < G; ++n) {
      keys[n] = key_lanes(block, g + n);
      acc[n] = V::set(0.0f);
    }
    chain_one_row<V, G>(keys, 16, dim_ / kStepTerms, &s_.q_values[i * dim_], &s_.q_exponents[i * dim_ / 2], acc, check);
    const uint32_t failed = check.failed_lanes(q_bound, key_bound);
    for (int n = 0; n < G; ++n) {
      const typename V::Float one[1] = {acc[n]};
      store_scores<1>(block, g + n, i, one, failed);
    }
  }

  const uint32_t* key_lanes(int block, int g) const {
    return tile_.group_of(tile_.keys, block / 16 + g / kGroupsPer16) + g % kGroupsPer16 * V::kLanes;
  }

  template <int R>
  void store_scores(int block, int g, int i, const typename V::Float (&acc)[R], uint32_t failed) {
    for (int r = 0; r < R; ++r) {
      float* scores = &s_.scores[(i + r) * kBlockKeys + g * V::kLanes];
      V::store(scores, acc[r]);
      for (uint32_t rest = failed; rest != 0; rest &= rest - 1) {
        const int lane = __builtin_ctz(rest);
        const int key = block + g * V::kLanes + lane;
        if (key <= tile_.query_position(i + r)) scores[lane] = exact_score(tile_, i + r, key);
      }
    }
  }

  /// Turns a query's scores into weights, rescales what it has, and notes its new maximum. @return whether every weight
  /// is large enough for the chain not to need the exponents of the values
  bool weigh(int block, int i, int keys, float scale) {
    const int visible = std::min(keys, tile_.query_position(i) + 1 - block);
    const float* scores = &s_.scores[i * kBlockKeys];
    float* values = &s_.p_values[i * kBlockKeys];
    uint32_t bits[kBlockKeys];
    float block_max = scores[0];
    for (int j = 1; j < visible; ++j) block_max = scores[j] > block_max ? scores[j] : block_max;
    block_max = block_max * scale;
    const float new_max = next_max(s_.maxima[i], block_max);
    const float alpha = exp2_f32(difference(s_.maxima[i], new_max));
    s_.maxima[i] = new_max;
    for (int j = 0; j < keys; ++j) bits[j] = attention_weight_bits(fmaf(scores[j], scale, -new_max));
    for (int j = visible; j < keys; ++j) bits[j] = 0;
    uint32_t smallest = 0xFFFFFFFFu;
    for (int j = 0; j < keys; ++j) {
      smallest = std::min(smallest, bits[j]);
      values[j] = bits_float(bits[j] << 16);
    }
    uint32_t* exponents = &s_.p_exponents[i * kBlockKeys / 2];
    for (int j = 0; j < keys / 2; ++j) exponents[j] = (bits[2 * j] & 0x7F80u) | (bits[2 * j + 1] & 0x7F80u) << 16;
    if (alpha != 1.0f) {
      s_.sums[i] = s_.sums[i] * alpha;
      for (int d = 0; d < dim_; ++d) s_.acc[i * dim_ + d] = s_.acc[i * dim_ + d] * alpha;
    }
    return (smallest >> 7) >= uint32_t(kSafeExponent);
  }

  /// Continues the chains of queries i … i+R-1 over the block's values and, for the sum of weights, over ones.
  template <int R>
  __attribute__((noinline)) void weighted_sums(int block, int key_groups, int i, int value_bound) {
    // Every step reads the same ones, hence a stride of 0.
    static constexpr uint32_t kOnes[16] = {0x3F803F80u, 0x3F803F80u, 0x3F803F80u, 0x3F803F80u, 0x3F803F80u, 0x3F803F80u,
                                           0x3F803F80u, 0x3F803F80u, 0x3F803F80u, 0x3F803F80u, 0x3F803F80u, 0x3F803F80u,
                                           0x3F803F80u, 0x3F803F80u, 0x3F803F80u, 0x3F803F80u};
    const uint32_t* groups[kBlockKeys / 16];
    for (int g = 0; g < key_groups; ++g) groups[g] = tile_.group_of(tile_.values, block / 16 + g);
    const float* values[R];
    const uint32_t* exponents[R];
    for (int r = 0; r < R; ++r) {
      values[r] = &s_.p_values[(i + r) * kBlockKeys];
      exponents[r] = &s_.p_exponents[(i + r) * kBlockKeys / 2];
    }
    for (int d = 0; d < dim_;) {
      if constexpr (R == 1) {
        if (d + kGroupsAtOnce * V::kLanes <= dim_) {
          one_query_sums<kGroupsAtOnce>(block, key_groups, groups, d, i, value_bound);
          d += kGroupsAtOnce * V::kLanes;
          continue;
        }
      }
      typename V::Float acc[R];
      StepCheck<V> check;
      for (int r = 0; r < R; ++r) acc[r] = V::load(&s_.acc[(i + r) * dim_ + d]);
      for (int g = 0; g < key_groups; ++g) {
        const float* v[R];
        const uint32_t* e[R];
        for (int r = 0; r < R; ++r) {
          v[r] = values[r] + g * 16;
          e[r] = exponents[r] + g * 8;
        }
        chain_rows<V, R>(groups[g] + d, dim_, 1, v, e, acc, check);
      }
      const uint32_t failed = check.failed_lanes(kLargestWeight, value_bound);
      for (int r = 0; r < R; ++r) store_sums(block, d, i + r, acc[r], failed);
      d += V::kLanes;
    }
    typename V::Float sums[R];
    StepCheck<V> check;
    for (int r = 0; r < R; ++r) sums[r] = V::set(s_.sums[i + r]);
    chain_rows<V, R>(kOnes, 0, key_groups, values, exponents, sums, check);
    const bool failed = check.failed_lanes(kLargestWeight, 127) != 0;
    for (int r = 0; r < R; ++r) {
      float lanes[V::kLanes];
      V::store(lanes, sums[r]);
      s_.sums[i + r] =
          failed ? exact_weighted_sum(tile_, i + r, block, -1, values[r], s_.sums[i + r]) : lanes[0];
    }
  }

  template <int G>
  void one_query_sums(int block, int key_groups, const uint32_t* const* groups, int d, int i, int value_bound) {
    typename V::Float acc[G];
    StepCheck<V> check;
    for (int n = 0; n < G; ++n) acc[n] = V::load(&s_.acc[i * dim_ + d + n * V::kLanes]);
    for (int g = 0; g < key_groups; ++g) {
      const uint32_t* lanes[G];
      for (int n = 0; n < G; ++n) lanes[n] = groups[g] + d + n * V::kLanes;
      chain_one_row<V, G>(lanes, dim_, 1, &s_.p_values[i * kBlockKeys + g * 16],
                          &s_.p_exponents[i * kBlockKeys / 2 + g * 8], acc, check);
    }
    const uint32_t failed = check.failed_lanes(kLargestWeight, value_bound);
    for (int n = 0; n < G; ++n) store_sums(block, d + n * V::kLanes, i, acc[n], failed);
  }

  void store_sums(int block, int d, int query, typename V::Float acc, uint32_t failed) {
    float* out = &s_.acc[query * dim_ + d];
    float before[V::kLanes];
    for (int lane = 0; lane < V::kLanes; ++lane) before[lane] = out[lane];
    V::store(out, acc);
    for (; failed != 0; failed &= failed - 1) {
      const int lane = __builtin_ctz(failed);
      out[lane] =
          exact_weighted_sum(tile_, query, block, d + lane, &s_.p_values[query * kBlockKeys], before[lane]);
    }
  }

  /// Exponent field of the largest weight, 2^8.
  static constexpr int kLargestWeight = 127 + 8;

  const AttentionTile& tile_;
  AttentionScratch& s_;
  const int queries_;
  const int dim_;
};

}  // namespace detinfer
