#include <algorithm>

#include "core/per_isa.h"
#include "core/thread_pool.h"
#include "kernels/norm/rms_norm_row.h"
#include "kernels/rope/rope.h"

namespace detinfer {
namespace {

constexpr int64_t kGrainElements = 8192;

void rotate_head(const bf16* x, int head_dim, const bf16* norm, float eps, const float* cos, const float* sin,
                 bf16* y) {
  if (norm) {
    rms_norm_row(x, head_dim, norm, eps, y);
    x = y;
  }
  const int half = head_dim / 2;
  for (int i = 0; i < half; ++i) {
    const float x1 = to_float(x[i]), x2 = to_float(x[half + i]);
    y[i] = to_bf16(x1 * cos[i] - x2 * sin[i]);
    y[half + i] = to_bf16(x2 * cos[i] + x1 * sin[i]);
  }
}

void write_key(const bf16* k, int head_dim, bf16* group, int lane) {
  for (int i = 0; i < head_dim; i += 2) {
    group[i * 16 + lane * 2] = k[i];
    group[i * 16 + lane * 2 + 1] = k[i + 1];
  }
}

void write_value(const bf16* v, int head_dim, bf16* group, int lane) {
  bf16* out = group + lane / 2 * 2 * head_dim + lane % 2;
  for (int i = 0; i < head_dim; ++i) out[2 * i] = v[i];
}

void rope_row(const RopeArgs* args, int64_t row) {
  bf16 key[kMaxHeadDim];
  const KvLayout& layout = args->layout;
  const int d = layout.head_dim;
  const bf16* head = args->qkv + row * (args->heads + 2 * layout.kv_heads) * d;
  const float* cos = args->cos + int64_t(args->positions[row]) * (d / 2);
  const float* sin = args->sin + int64_t(args->positions[row]) * (d / 2);
  const int64_t page = args->slots[row] / layout.page_size;
  const int slot = int(args->slots[row] % layout.page_size);
  for (int h = 0; h < args->heads; ++h, head += d) {
    rotate_head(head, d, args->q_norm, args->eps, cos, sin, args->q + (row * args->heads + h) * d);
  }
  for (int h = 0; h < layout.kv_heads; ++h, head += d) {
    rotate_head(head, d, args->k_norm, args->eps, cos, sin, key);
    write_key(key, d, args->keys + layout.group_offset(page, h, slot / 16), slot % 16);
  }
  for (int h = 0; h < layout.kv_heads; ++h, head += d) {
    write_value(head, d, args->values + layout.group_offset(page, h, slot / 16), slot % 16);
  }
}

}  // namespace

void rope_cpu(ThreadPool& pool, const RopeArgs& args) {
  const int64_t row_elements = int64_t(args.heads + 2 * args.layout.kv_heads) * args.layout.head_dim;
  pool.parallel_for(args.rows, std::max<int64_t>(1, kGrainElements / row_elements), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) run_per_isa<rope_row>(&args, row);
  });
}

}  // namespace detinfer
