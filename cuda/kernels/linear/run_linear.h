// linear_cuda by a schedule of the caller's choice, for tests and benchmarks.
#pragma once

#include "kernels/linear/linear_cuda.h"
#include "kernels/linear/linear_schedule.h"

namespace detinfer {

/// @param bias [n] or null @param y [rows][n], of SwiGLU [rows][n / 2] @throws Error kEngineFailed
void run_linear(const LinearSchedule& schedule, const bf16* x, int rows, const DeviceMatrix& w, const bf16* bias,
                void* y, LinearOutput output, cudaStream_t stream);

/// Multiprocessors of the current device.
int multiprocessors();

}  // namespace detinfer
