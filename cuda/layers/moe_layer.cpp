#include "layers/moe_layer.h"

#include "kernels/mlp/swiglu.h"

namespace detinfer {

MoeLayer::MoeLayer(const MoeSpec& spec, const std::string& name) : spec_(spec) {
  router_.parts = {linear_tensor(name + ".gate.weight", spec.route.experts, spec.hidden)};
  gate_up_.group = kSwigluGroup;
  for (int i = 0; i < spec.route.experts; ++i) {
    const std::string expert = name + ".experts." + std::to_string(i);
    gate_up_.parts.push_back(linear_tensor(expert + ".gate_proj.weight", spec.intermediate, spec.hidden));
    gate_up_.parts.push_back(linear_tensor(expert + ".up_proj.weight", spec.intermediate, spec.hidden));
    down_.parts.push_back(linear_tensor(expert + ".down_proj.weight", spec.hidden, spec.intermediate));
  }
}

void MoeLayer::collect(ParameterList& parameters) {
  parameters.matrices.insert(parameters.matrices.end(), {&router_, &gate_up_, &down_});
}

void MoeLayer::declare(Workspace& work) const {
  const int64_t top_k = spec_.route.top_k;
  work.declare_routes(spec_.route);
  work.declare(Workspace::kActivated, top_k * spec_.intermediate);
  work.declare(Workspace::kExpertOutputs, top_k * spec_.hidden);
  work.declare(Workspace::kDelta, spec_.hidden);
}

int64_t MoeLayer::unread_bytes() const {
  const int64_t unread = spec_.route.experts - spec_.route.top_k;
  return (gate_up_.value->bytes() + down_.value->bytes()) / spec_.route.experts * unread;
}

bf16* MoeLayer::forward(Step& step, const bf16* x) const {
  const ExpertWork work{step.work.router_logits(), step.work.routes(), step.buffer(Workspace::kActivated),
                        step.buffer(Workspace::kExpertOutputs)};
  bf16* const out = step.buffer(Workspace::kDelta);
  step.ops.experts(x, step.batch.rows, spec_.route, *router_.value, *gate_up_.value, *down_.value, work, out);
  return out;
}

}  // namespace detinfer
