// linear_cuda by a schedule of the caller's choice, for tests and benchmarks.
#pragma once

#include "kernels/linear/linear_cuda.h"
#include "kernels/linear/linear_schedule.h"

namespace detinfer {

/// @param y f32 or bf16 [rows][n] @throws Error kEngineFailed
void run_linear(const LinearSchedule& schedule, const bf16* x, int rows, const DeviceMatrix& w, const bf16* bias,
                void* y, bool f32, cudaStream_t stream);

/// Multiprocessors of the current device.
int multiprocessors();

}  // namespace detinfer
