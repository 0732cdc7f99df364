// SwiGLU: y = bf16(g / (1 + exp(-g)) · u) in f32, with g and u the bf16 outputs of one linear. It ends that linear: the
// rows of a weight matrix of gates and ups take turns in groups, so that a gate and its up are computed side by side.
#pragma once

#include "core/numerics.h"

namespace detinfer {

/// Gates 0 … 7, ups 0 … 7, gates 8 … 15, …: on a GPU a gate and its up then lie in the accumulators of one thread.
constexpr int kSwigluGroup = 8;

/// The readable reference. @param gate_up [rows][2·n]: n gates, then n ups @param y [rows][n]
void swiglu_reference(const bf16* gate_up, int rows, int n, bf16* y);

/// Rounds the sums of a linear and applies SwiGLU. @param sums [count] of gates and ups in groups; whole groups, at
/// most kPanelColumns @param y [count / 2]
void swiglu_of_sums(const float* sums, int count, bf16* y);

}  // namespace detinfer
