// expert_linear_cuda by a schedule of the caller's choice, for tests and benchmarks.
#pragma once

#include "kernels/moe/expert_schedule.h"
#include "kernels/moe/moe_cuda.h"

namespace detinfer {

/// @param swiglu y is SwiGLU of the outputs, half as many
void run_expert_linear(const ExpertSchedule& schedule, const bf16* x, int rows, const RouteSpec& spec,
                       const ExpertRoutes& routes, bool gather, const DeviceMatrix& w, bf16* y, bool swiglu,
                       cudaStream_t stream);

}  // namespace detinfer
