#include <string>

#include "core/error.h"
#include "core/tensor_map.cuh"
#include "kernels/linear/run_linear.h"
#include "kernels/moe/expert_walk.cuh"
#include "kernels/moe/run_expert_linear.h"

namespace detinfer {

void check_expert_outputs(int n) {
  if (n > 0 && n % 8 == 0) return;
  throw Error(ErrorCode::kUnsupported,
              "experts on a GPU have a multiple of 8 outputs, not " + std::to_string(n) + "; use --device cpu");
}

void run_expert_linear(const ExpertSchedule& schedule, const bf16* x, int rows, const RouteSpec& spec,
                       const ExpertRoutes& routes, bool gather, const DeviceMatrix& w, bf16* y, cudaStream_t stream) {
  static_assert(kExpertTileCount == 2, "a launcher for each");
  constexpr decltype(&expert::launch_tile<0>) kLaunchers[] = {expert::launch_tile<0>, expert::launch_tile<1>};
  const CUtensorMap map = tensor_map_2d(w.data, w.k, w.n, w.k, 64, schedule.outputs);
  const bool stream_weights = rows * spec.top_k <= spec.experts * schedule.entries / 2;
  const expert::Arguments arguments{
      x, gather ? routes.row : nullptr, routes.first, y, w.n / spec.experts, w.k, stream_weights, schedule};
  kLaunchers[schedule.tile](map, arguments, stream);
}

void expert_linear_cuda(const bf16* x, int rows, const RouteSpec& spec, const ExpertRoutes& routes, bool gather,
                        const DeviceMatrix& w, bf16* y, cudaStream_t stream) {
  check_expert_outputs(w.n / spec.experts);
  if (rows == 0) return;
  const ExpertSchedule schedule =
      choose_expert_schedule(rows, spec.experts, spec.top_k, w.n / spec.experts, w.k, multiprocessors());
  run_expert_linear(schedule, x, rows, spec, routes, gather, w, y, stream);
}

}  // namespace detinfer
