#include "layers/mlp_layer.h"

#include "kernels/mlp/swiglu.h"

namespace detinfer {

MlpLayer::MlpLayer(int hidden, int intermediate, const std::string& name)
    : hidden_(hidden), intermediate_(intermediate) {
  gate_up_.parts = {linear_tensor(name + ".gate_proj.weight", intermediate, hidden),
                    linear_tensor(name + ".up_proj.weight", intermediate, hidden)};
  gate_up_.group = kSwigluGroup;
  down_.parts = {linear_tensor(name + ".down_proj.weight", hidden, intermediate)};
}

void MlpLayer::collect(ParameterList& parameters) {
  parameters.matrices.insert(parameters.matrices.end(), {&gate_up_, &down_});
}

void MlpLayer::declare(Workspace& work) const {
  work.declare(Workspace::kActivated, intermediate_);
  work.declare(Workspace::kDelta, hidden_);
}

bf16* MlpLayer::forward(Step& step, const bf16* x) const {
  const int rows = step.batch.rows;
  bf16* const activated = step.buffer(Workspace::kActivated);
  bf16* const out = step.buffer(Workspace::kDelta);
  step.ops.linear_swiglu(x, rows, *gate_up_.value, activated);
  step.ops.linear(activated, rows, *down_.value, out);
  return out;
}

}  // namespace detinfer
