// What a kernel of decoding is given, whatever backend it belongs to.
#pragma once

#include "attention/device_plan.cuh"
#include "attention/split_workspace.cuh"
#include "kernels/rope/rope.h"

namespace detinfer::attention {

/// A step of more rows has its rope done by a kernel of its own, once for all splits of a row.
constexpr int kMostRowsWithRope = 64;

/// Whether decoding makes the queries, keys and values of a step by itself, which only a step of decodes alone is left to.
inline bool decode_includes_rope(const AttentionPlan& plan, int rows) {
  return plan.tiles == 0 && rows <= kMostRowsWithRope;
}

struct DecodeArgs {
  /// The plan's header and records.
  const int32_t* plan;
  int split_words;
  /// See AttentionBackend::launch.
  RopeArgs rope;
  bf16* out;
  /// If not null, it gets the outputs before rounding, and `out` nothing.
  float* out_f32;
  /// Finished splits: (maximum, sum) [split][heads] and sums of values [split][heads][head_dim].
  float2* partial_rules;
  float* partial_sums;
  /// Finished splits of each sequence and KV head; all 0 between launches.
  int* counters;
  /// Pairs of split and KV head dealt beyond the first of each block, and busy blocks that are done; both 0 between
  /// launches. A block without a first pair touches neither: an earlier launch may still be under way.
  int* queue;
  int heads;
  int kv_heads;
  int head_dim;
  int page_shift;
  float scale;
};

/// @param out, out_f32 one of them, the other null
inline DecodeArgs decode_args(const PagedKvLayout& kv, int heads, const DevicePlan& plan, const SplitWorkspace& splits,
                              const RopeArgs& rope, bf16* out, float* out_f32) {
  DecodeArgs args;
  args.plan = plan.words();
  args.split_words = plan.layout().split_words;
  args.rope = rope;
  args.out = out;
  args.out_f32 = out_f32;
  args.partial_rules = splits.rules();
  args.partial_sums = splits.sums();
  args.counters = splits.counters();
  args.queue = splits.queue();
  args.heads = heads;
  args.kv_heads = kv.kv_heads;
  args.head_dim = kv.head_dim;
  args.page_shift = plan.layout().page_shift;
  args.scale = attention_scale(kv.head_dim);
  return args;
}

}  // namespace detinfer::attention
