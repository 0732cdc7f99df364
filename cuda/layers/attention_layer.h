// Self-attention: q, k, v in one linear, norm of q and k heads where the model has it, rotation, attention over the
// cache, output linear.
#pragma once

#include <string>

#include "layers/parameter.h"
#include "layers/step.h"

namespace detinfer {

struct AttentionSpec {
  int hidden = 0;
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  /// RMSNorm of every q and k head.
  bool qk_norm = false;
  float norm_eps = 0.0f;
};

class AttentionLayer {
 public:
  /// @param name prefix of the weights' names, such as "model.layers.0.self_attn" @param index of its part of the cache
  AttentionLayer(const AttentionSpec& spec, const std::string& name, int index);

  void collect(ParameterList& parameters);
  void declare(Workspace& work) const;

  /// @param x [rows][hidden] @return [rows][hidden], valid until the next layer runs
  bf16* forward(Step& step, const bf16* x) const;

 private:
  AttentionSpec spec_;
  int index_;
  MatrixParameter qkv_;
  MatrixParameter output_;
  VectorParameter q_norm_;
  VectorParameter k_norm_;
};

}  // namespace detinfer
