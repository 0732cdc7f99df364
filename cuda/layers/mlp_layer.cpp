#include "layers/mlp_layer.h"

namespace detinfer {

MlpLayer::MlpLayer(int hidden, int intermediate, const std::string& name)
    : hidden_(hidden), intermediate_(intermediate) {
  gate_up_.parts = {linear_tensor(name + ".gate_proj.weight", intermediate, hidden),
                    linear_tensor(name + ".up_proj.weight", intermediate, hidden)};
  down_.parts = {linear_tensor(name + ".down_proj.weight", hidden, intermediate)};
}

void MlpLayer::collect(ParameterList& parameters) {
  parameters.matrices.insert(parameters.matrices.end(), {&gate_up_, &down_});
}

void MlpLayer::declare(Workspace& work) const {
  work.declare(Workspace::kGateUp, 2 * int64_t(intermediate_));
  work.declare(Workspace::kActivated, intermediate_);
  work.declare(Workspace::kDelta, hidden_);
}

bf16* MlpLayer::forward(Step& step, const bf16* x) const {
  const int rows = step.batch.rows;
  bf16* const gate_up = step.buffer(Workspace::kGateUp);
  bf16* const activated = step.buffer(Workspace::kActivated);
  bf16* const out = step.buffer(Workspace::kDelta);
  step.ops.linear(x, rows, *gate_up_.value, gate_up);
  step.ops.swiglu(gate_up, rows, intermediate_, activated);
  step.ops.linear(activated, rows, *down_.value, out);
  return out;
}

}  // namespace detinfer
