// Qwen3, mixture of experts: the attention of Qwen3, and experts in place of the MLP of some or all layers.
#include <algorithm>

#include "core/error.h"
#include "models/causal_lm.h"
#include "models/common_config.h"
#include "models/families.h"

namespace detinfer {
namespace {

/// Older files say num_experts, those of transformers 5 num_local_experts.
int expert_count(const ConfigMap& config) {
  const char* const old_key = "num_experts";
  const char* const new_key = "num_local_experts";
  if (!config.has(new_key)) return config.positive_int(old_key);
  const int count = config.positive_int(new_key);
  if (config.positive_int(old_key, count) != count) {
    throw Error(ErrorCode::kInvalidModel, "config.json: num_experts disagrees with num_local_experts; keep one");
  }
  return count;
}

/// Which layers have experts: every decoder_sparse_step-th one that mlp_only_layers does not name.
std::vector<bool> sparse_layers(const ConfigMap& config, int layers) {
  const int step = config.positive_int("decoder_sparse_step", 1);
  std::vector<bool> sparse(layers);
  for (int i = 0; i < layers; ++i) sparse[i] = (i + 1) % step == 0;
  for (int dense : config.indices("mlp_only_layers", layers)) sparse[dense] = false;
  return sparse;
}

void refuse_other_experts(const ConfigMap& config) {
  for (const char* key : {"shared_expert_intermediate_size", "n_shared_experts"}) {
    if (config.has(key)) {
      throw Error(ErrorCode::kUnsupported, "config.json: " + std::string(key) + " is not supported: " +
                                               "a Qwen3 mixture of experts has no expert that all tokens share");
    }
  }
}

}  // namespace

std::unique_ptr<Model> make_qwen3_moe(const ConfigMap& config) {
  refuse_other_experts(config);
  CausalLmSpec spec = qwen3_config(config);
  spec.sparse_layers = sparse_layers(config, spec.layers);
  spec.moe.route.experts = expert_count(config);
  spec.moe.route.top_k = config.positive_int("num_experts_per_tok");
  spec.moe.route.normalize = config.flag("norm_topk_prob", false);
  spec.moe.hidden = spec.attention.hidden;
  spec.moe.intermediate = intermediate_size(config, "moe_intermediate_size");
  check_route_spec(spec.moe.route);
  return std::make_unique<CausalLm>(spec);
}

}  // namespace detinfer
