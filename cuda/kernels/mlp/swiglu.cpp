#include "kernels/mlp/swiglu.h"

#include "core/per_isa.h"
#include "kernels/linear/linear.h"

namespace detinfer {
namespace {

void of_sums(const float* sums, int count, bf16* y) {
  constexpr int kMost = kPanelColumns / 2;
  float gates[kMost], ups[kMost];
  for (int i = 0; i < count / 2; i += kSwigluGroup) {
    for (int j = 0; j < kSwigluGroup; ++j) {
      gates[i + j] = to_float(to_bf16(sums[2 * i + j]));
      ups[i + j] = to_float(to_bf16(sums[2 * i + kSwigluGroup + j]));
    }
  }
  for (int i = 0; i < count / 2; ++i) y[i] = to_bf16(gates[i] / (1.0f + exp_f32(-gates[i])) * ups[i]);
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

void swiglu_of_sums(const float* sums, int count, bf16* y) { run_per_isa<of_sums>(sums, count, y); }

}  // namespace detinfer
