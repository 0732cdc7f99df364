// From the fused q, k, v outputs of a linear to what attention reads: per-head RMSNorm of q and k (where the model has
// it), rotation by position, and keys and values written to the cache. Equal to its parts bit for bit.
// Rotation pairs element i with i + head_dim/2: y1 = x1·cos - x2·sin, y2 = x2·cos + x1·sin; each product is rounded to
// f32, then the sum, and the result once to bf16.
#pragma once

#include "core/numerics.h"
#include "kernels/attention/attention.h"

namespace detinfer {

class ThreadPool;

/// Largest head: bounds a row kept on the stack.
constexpr int kMaxHeadDim = 1024;

struct RopeArgs {
  /// [rows][(heads + 2·kv_heads)·head_dim]: q heads, k heads, v heads.
  const bf16* qkv = nullptr;
  int rows = 0;
  int heads = 0;
  /// Absolute position of each row.
  const int32_t* positions = nullptr;
  /// [position][head_dim/2]
  const float* cos = nullptr;
  const float* sin = nullptr;
  /// [head_dim] each; null: no norm.
  const bf16* q_norm = nullptr;
  const bf16* k_norm = nullptr;
  float eps = 0.0f;
  /// [rows][heads][head_dim]
  bf16* q = nullptr;
  /// One layer's pool, and the slot (page · page_size + position within the page) of each row.
  bf16* keys = nullptr;
  bf16* values = nullptr;
  KvLayout layout;
  const int64_t* slots = nullptr;
};

/// The readable reference.
void rope_reference(const RopeArgs& args);

/// The fast path.
void rope_cpu(ThreadPool& pool, const RopeArgs& args);

}  // namespace detinfer
