#include <vector>

#include "kernels/norm/rms_norm.h"
#include "kernels/rope/rope.h"

namespace detinfer {
namespace {

std::vector<bf16> normed_and_rotated(const bf16* head, int head_dim, const bf16* norm, float eps, const float* cos,
                                     const float* sin) {
  std::vector<bf16> x(head, head + head_dim), y(head_dim);
  if (norm) rms_norm_reference(head, 1, head_dim, norm, eps, x.data());
  const int half = head_dim / 2;
  for (int i = 0; i < half; ++i) {
    const float x1 = to_float(x[i]), x2 = to_float(x[half + i]);
    y[i] = to_bf16(x1 * cos[i] - x2 * sin[i]);
    y[half + i] = to_bf16(x2 * cos[i] + x1 * sin[i]);
  }
  return y;
}

}  // namespace

void rope_reference(const RopeArgs& args) {
  const KvLayout& layout = args.layout;
  const int d = layout.head_dim;
  for (int row = 0; row < args.rows; ++row) {
    const bf16* head = args.qkv + int64_t(row) * (args.heads + 2 * layout.kv_heads) * d;
    const float* cos = args.cos + int64_t(args.positions[row]) * d / 2;
    const float* sin = args.sin + int64_t(args.positions[row]) * d / 2;
    const int64_t page = args.slots[row] / layout.page_size;
    const int slot = int(args.slots[row] % layout.page_size);
    for (int h = 0; h < args.heads; ++h, head += d) {
      const std::vector<bf16> q = normed_and_rotated(head, d, args.q_norm, args.eps, cos, sin);
      for (int i = 0; i < d; ++i) args.q[(int64_t(row) * args.heads + h) * d + i] = q[i];
    }
    for (int h = 0; h < layout.kv_heads; ++h, head += d) {
      const std::vector<bf16> k = normed_and_rotated(head, d, args.k_norm, args.eps, cos, sin);
      for (int i = 0; i < d; ++i) args.keys[layout.key_offset(page, h, slot, i)] = k[i];
    }
    for (int h = 0; h < layout.kv_heads; ++h, head += d) {
      for (int i = 0; i < d; ++i) args.values[layout.value_offset(page, h, slot, i)] = head[i];
    }
  }
}

}  // namespace detinfer
