#include "models/common_config.h"

#include "core/error.h"
#include "kernels/mlp/swiglu.h"

namespace detinfer {
namespace {

[[noreturn]] void unsupported(const std::string& what) {
  throw Error(ErrorCode::kUnsupported, "config.json: " + what + " is not supported");
}

/// What is below 1 would turn by more than 1 a position, beyond the angles that sin and cos are made for.
double at_least_one(const std::string& key, double number) {
  if (number >= 1.0) return number;
  throw Error(ErrorCode::kInvalidModel, "config.json: " + key + " must be at least 1");
}

std::string rope_type(const ConfigMap& config, const std::string& group) {
  // Older files say "type".
  return config.text(group + ".rope_type", config.text(group + ".type", "default"));
}

}  // namespace

RopeSpec rope_config(const ConfigMap& config) {
  const bool nested = config.has("rope_parameters"), scaled = config.has("rope_scaling");
  const std::string group = nested ? "rope_parameters" : "rope_scaling";
  const std::string nested_theta = "rope_parameters.rope_theta";
  const std::string theta = config.has(nested_theta) ? nested_theta : "rope_theta";
  RopeSpec rope;
  rope.theta = at_least_one(theta, config.positive_number(theta, rope.theta));
  const std::string type = nested || scaled ? rope_type(config, group) : "default";
  if (nested && ((scaled && rope_type(config, "rope_scaling") != type) ||
                 config.positive_number("rope_theta", rope.theta) != rope.theta)) {
    throw Error(ErrorCode::kInvalidModel,
                "config.json: rope_parameters disagrees with rope_theta or rope_scaling; keep one of the two styles");
  }
  if (type == "default") return rope;
  if (type != "llama3") unsupported("rope type \"" + type + "\"");
  rope.type = RopeType::kLlama3;
  rope.factor = at_least_one(group + ".factor", config.positive_number(group + ".factor"));
  rope.low_freq_factor = config.positive_number(group + ".low_freq_factor");
  rope.high_freq_factor = config.positive_number(group + ".high_freq_factor");
  rope.original_context = config.positive_number(group + ".original_max_position_embeddings");
  if (rope.high_freq_factor <= rope.low_freq_factor) {
    throw Error(ErrorCode::kInvalidModel, "config.json: " + group + ".high_freq_factor must exceed low_freq_factor");
  }
  return rope;
}

void refuse_unsupported(const ConfigMap& config) {
  if (config.has("quantization_config")) unsupported("quantization_config (weights must be bfloat16)");
  for (const char* key : {"torch_dtype", "dtype"}) {
    const std::string type = config.text(key, "bfloat16");
    if (type == "bfloat16") continue;
    unsupported(std::string(key) + " \"" + type + "\" (convert the checkpoint to bfloat16; if its tensors are that "
                "already, say so here or in --json-model-override-args)");
  }
  const std::string activation = config.text("hidden_act", "silu");
  if (activation != "silu") unsupported("hidden_act \"" + activation + "\"");
  for (const char* bias : {"attention_bias", "mlp_bias"}) {
    if (config.flag(bias, false)) unsupported(std::string(bias) + " true");
  }
  if (config.flag("use_sliding_window", false)) unsupported("use_sliding_window true");
  for (int i = 0;; ++i) {
    const std::string key = "layer_types." + std::to_string(i);
    if (!config.has(key)) break;
    if (config.text(key) != "full_attention") unsupported(key + " \"" + config.text(key) + "\"");
  }
  for (const char* key : {"partial_rotary_factor", "rope_parameters.partial_rotary_factor"}) {
    if (config.positive_number(key, 1.0) != 1.0) unsupported(std::string(key) + " other than 1");
  }
}

int intermediate_size(const ConfigMap& config, const std::string& key) {
  const int size = config.positive_int(key);
  if (size % kSwigluGroup != 0) {
    unsupported(key + " " + std::to_string(size) + " (it must be a multiple of " + std::to_string(kSwigluGroup) + ")");
  }
  return size;
}

}  // namespace detinfer
