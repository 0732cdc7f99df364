// The gated feed-forward layer: gate and up in one linear that ends in SwiGLU, down.
#pragma once

#include <string>

#include "layers/feed_forward.h"

namespace detinfer {

class MlpLayer : public FeedForward {
 public:
  /// @param name prefix of the weights' names, such as "model.layers.0.mlp"
  MlpLayer(int hidden, int intermediate, const std::string& name);

  void collect(ParameterList& parameters) override;
  void declare(Workspace& work) const override;
  int64_t unread_bytes() const override { return 0; }
  bf16* forward(Step& step, const bf16* x) const override;

 private:
  int hidden_;
  int intermediate_;
  /// In groups (kernels/mlp/swiglu.h).
  MatrixParameter gate_up_;
  MatrixParameter down_;
};

}  // namespace detinfer
