// expert_linear_cuda by a schedule of the caller's choice, for tests and benchmarks.
#pragma once

#include "kernels/moe/expert_schedule.h"
#include "kernels/moe/moe_cuda.h"

namespace detinfer {

void run_expert_linear(const ExpertSchedule& schedule, const bf16* x, int rows, const RouteSpec& spec,
                       const ExpertRoutes& routes, bool gather, const DeviceMatrix& w, bf16* y, cudaStream_t stream);

}  // namespace detinfer
