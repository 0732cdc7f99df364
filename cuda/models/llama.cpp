// Llama 2, 3, 3.1 and those that share their architecture.
#include "models/causal_lm.h"
#include "models/families.h"

namespace detinfer {

std::unique_ptr<Model> make_llama(const ConfigMap& config) {
  const int head_dim = config.positive_int("hidden_size") / config.positive_int("num_attention_heads");
  return std::make_unique<CausalLm>(causal_lm_config(config, head_dim));
}

}  // namespace detinfer
