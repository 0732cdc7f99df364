#include "kernels/moe/few_rows.h"
#include "kernels/moe/moe_cuda.h"

namespace detinfer {

void experts_cuda(const bf16* x, int rows, const RouteSpec& spec, const DeviceMatrix& router,
                  const DeviceMatrix& gate_up, const DeviceMatrix& down, const ExpertWork& work, bf16* out,
                  cudaStream_t stream) {
  linear_cuda(x, rows, router, nullptr, work.logits, stream);
  if (are_few_rows(rows, spec)) {
    few_rows_gate_up_cuda(x, work.logits, rows, spec, gate_up, work.activated, stream);
    few_rows_down_cuda(work.activated, work.logits, rows, spec, down, out, stream);
    return;
  }
  route_experts_cuda(work.logits, rows, spec, work.routes, stream);
  expert_linear_swiglu_cuda(x, rows, spec, work.routes, gate_up, work.activated, stream);
  expert_linear_cuda(work.activated, rows, spec, work.routes, false, down, work.outputs, stream);
  combine_experts_cuda(work.outputs, rows, down.n / spec.experts, spec, work.routes, out, stream);
}

}  // namespace detinfer
