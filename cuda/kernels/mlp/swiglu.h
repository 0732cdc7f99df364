// SwiGLU: y = bf16(g / (1 + exp(-g)) · u) in f32, with g and u the bf16 outputs of one linear, side by side.
#pragma once

#include "core/numerics.h"

namespace detinfer {

class ThreadPool;

/// The readable reference. @param gate_up [rows][2·n]: n gates, then n ups @param y [rows][n]
void swiglu_reference(const bf16* gate_up, int rows, int n, bf16* y);

/// The fast path.
void swiglu_cpu(ThreadPool& pool, const bf16* gate_up, int rows, int n, bf16* y);

}  // namespace detinfer
