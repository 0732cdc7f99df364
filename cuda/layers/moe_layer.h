// A mixture of experts: the router's linear and choice, gate and up of the chosen experts, SwiGLU, down, and the sum of
// what they say by their weights.
#pragma once

#include <string>

#include "layers/feed_forward.h"

namespace detinfer {

struct MoeSpec {
  RouteSpec route;
  int hidden = 0;
  /// Of one expert.
  int intermediate = 0;
};

class MoeLayer : public FeedForward {
 public:
  /// @param name prefix of the weights' names, such as "model.layers.0.mlp"
  MoeLayer(const MoeSpec& spec, const std::string& name);

  void collect(ParameterList& parameters) override;
  void declare(Workspace& work) const override;
  int64_t unread_bytes() const override;
  bf16* forward(Step& step, const bf16* x) const override;

 private:
  MoeSpec spec_;
  MatrixParameter router_;
  /// Gate and up of expert 0, of expert 1, …, each pair in groups (kernels/mlp/swiglu.h).
  MatrixParameter gate_up_;
  MatrixParameter down_;
};

}  // namespace detinfer
