// The gated feed-forward layer: gate and up in one linear, SwiGLU, down.
#pragma once

#include <string>

#include "layers/parameter.h"
#include "layers/step.h"

namespace detinfer {

class MlpLayer {
 public:
  /// @param name prefix of the weights' names, such as "model.layers.0.mlp"
  MlpLayer(int hidden, int intermediate, const std::string& name);

  void collect(ParameterList& parameters);
  void declare(Workspace& work) const;

  /// @param x [rows][hidden] @return [rows][hidden], valid until the next layer runs
  bf16* forward(Step& step, const bf16* x) const;

 private:
  int hidden_;
  int intermediate_;
  MatrixParameter gate_up_;
  MatrixParameter down_;
};

}  // namespace detinfer
