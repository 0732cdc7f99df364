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
                       const ExpertRoutes& routes, bool gather, const DeviceMatrix& w, bf16* y, bool swiglu,
                       cudaStream_t stream) {
  static_assert(kExpertTileCount == 3, "a launcher for each");
  constexpr decltype(&expert::launch_tile<0>) kLaunchers[] = {expert::launch_tile<0>, expert::launch_tile<1>,
                                                             expert::launch_tile<2>};
  const CUtensorMap map = tensor_map_2d(w.data, w.k, w.n, w.k, 64,
                                        schedule.outputs / schedule.shape().cluster);
  // With room for those above the average.
  const bool stream_weights =
      int64_t(rows) * spec.top_k * 8 <= int64_t(spec.experts) * schedule.entries * schedule.shape().cluster * 7;
  const expert::Arguments arguments{
      x, gather ? routes.row : nullptr, routes.first, y, w.n / spec.experts, w.k, swiglu, stream_weights, schedule};
  kLaunchers[schedule.tile](map, arguments, stream);
}

void expert_linear_cuda(const bf16* x, int rows, const RouteSpec& spec, const ExpertRoutes& routes, bool gather,
                        const DeviceMatrix& w, bf16* y, cudaStream_t stream) {
  check_expert_outputs(w.n / spec.experts);
  if (rows == 0) return;
  const ExpertSchedule schedule =
      choose_expert_schedule(rows, spec.experts, spec.top_k, w.n / spec.experts, w.k, multiprocessors());
  run_expert_linear(schedule, x, rows, spec, routes, gather, w, y, false, stream);
}

void expert_linear_swiglu_cuda(const bf16* x, int rows, const RouteSpec& spec, const ExpertRoutes& routes,
                               const DeviceMatrix& w, bf16* y, cudaStream_t stream) {
  const int n = w.n / spec.experts;
  check_expert_outputs(n / 2);
  if (rows == 0) return;
  run_expert_linear(choose_expert_schedule(rows, spec.experts, spec.top_k, n, w.k, multiprocessors()), x, rows, spec,
                    routes, true, w, y, true, stream);
}

}  // namespace detinfer
