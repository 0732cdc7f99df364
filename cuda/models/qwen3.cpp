// Qwen3, dense: RMSNorm of every q and k head before rotation.
#include "models/causal_lm.h"
#include "models/families.h"

namespace detinfer {

CausalLmSpec qwen3_config(const ConfigMap& config) {
  constexpr int kDefaultHeadDim = 128;
  CausalLmSpec spec = causal_lm_config(config, kDefaultHeadDim);
  spec.attention.qk_norm = true;
  return spec;
}

std::unique_ptr<Model> make_qwen3(const ConfigMap& config) {
  return std::make_unique<CausalLm>(qwen3_config(config));
}

}  // namespace detinfer
