// The choice of experts of one row, by a warp.
#pragma once

#include "kernels/moe/moe.h"

namespace detinfer {

/// What lane i < top_k knows of rank i.
struct RankedExpert {
  int id;
  float weight;
};

/// Orders logits as unsigned integers, -0 like 0; no logit is 0.
__device__ __forceinline__ uint32_t key_of_logit(float logit) {
  const uint32_t bits = float_bits(route_logit(logit) + 0.0f);
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}

__device__ __forceinline__ float logit_of_key(uint32_t key) {
  return bits_float(key >> 31 ? key & 0x7FFFFFFFu : ~key);
}

/// @param logits [experts] @tparam kShare logits of a lane, 32 apart: experts are at most 32 · kShare
template <int kShare>
__device__ __forceinline__ RankedExpert choose_row(const float* logits, const RouteSpec& spec, int lane) {
  constexpr uint32_t kTaken = 0;
  uint32_t keys[kShare];
#pragma unroll
  for (int i = 0; i < kShare; ++i) {
    const int id = lane + i * 32;
    keys[i] = id < spec.experts ? key_of_logit(__ldcg(logits + id)) : kTaken;
  }

  const auto largest_key = [&] {
    uint32_t largest = 0;
#pragma unroll
    for (int i = 0; i < kShare; ++i) largest = max(largest, keys[i]);
    return __reduce_max_sync(~0u, largest);
  };
  const float m = logit_of_key(largest_key());
  float total = 0.0f;
  if (!spec.normalize) {
#pragma unroll
    for (int i = 0; i < kShare; ++i) {
      // What is no expert adds +0, which changes no sum.
      const float e = keys[i] == kTaken ? 0.0f : exp_f32(logit_of_key(keys[i]) - m);
      for (int j = 0; j < 32; ++j) total += __shfl_sync(~0u, e, j);
    }
  }

  RankedExpert mine = {0, 0.0f};
  uint32_t my_key = kTaken;
  for (int rank = 0; rank < spec.top_k; ++rank) {
    const uint32_t largest = largest_key();
    uint32_t id = kMaxExperts;
#pragma unroll
    for (int i = kShare - 1; i >= 0; --i) id = keys[i] == largest ? lane + i * 32 : id;
    id = __reduce_min_sync(~0u, id);
#pragma unroll
    for (int i = 0; i < kShare; ++i) keys[i] = id == lane + i * 32 ? kTaken : keys[i];
    if (lane == rank) {
      mine.id = int(id);
      my_key = largest;
    }
  }
  mine.weight = exp_f32(logit_of_key(my_key) - m);
  if (spec.normalize) {
    for (int rank = 0; rank < spec.top_k; ++rank) total += __shfl_sync(~0u, mine.weight, rank);
  }
  mine.weight = __fdiv_rn(mine.weight, total);
  return mine;
}

}  // namespace detinfer
