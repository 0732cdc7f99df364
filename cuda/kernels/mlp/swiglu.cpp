#include "kernels/mlp/swiglu.h"

#include <algorithm>

#include "core/per_isa.h"
#include "core/thread_pool.h"

namespace detinfer {
namespace {

constexpr int64_t kGrainElements = 8192;

void swiglu_range(const bf16* gate, const bf16* up, int64_t n, bf16* y) {
  for (int64_t i = 0; i < n; ++i) {
    const float g = to_float(gate[i]);
    y[i] = to_bf16(g / (1.0f + exp_f32(-g)) * to_float(up[i]));
  }
}

}  // namespace

void swiglu_reference(const bf16* gate_up, int rows, int n, bf16* y) {
  for (int row = 0; row < rows; ++row, gate_up += 2 * n, y += n) {
    for (int i = 0; i < n; ++i) {
      const float g = to_float(gate_up[i]);
      const float silu = g / (1.0f + exp_f32(-g));
      y[i] = to_bf16(silu * to_float(gate_up[n + i]));
    }
  }
}

void swiglu_cpu(ThreadPool& pool, const bf16* gate_up, int rows, int n, bf16* y) {
  pool.parallel_for(rows, std::max<int64_t>(1, kGrainElements / n), [=](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const bf16* gate = gate_up + row * 2 * n;
      run_per_isa<swiglu_range>(gate, gate + n, int64_t(n), y + row * n);
    }
  });
}

}  // namespace detinfer
