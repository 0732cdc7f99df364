// One maker per model family, each in a file of its own; models/registry.cpp lists them.
#pragma once

#include <memory>

#include "models/causal_lm.h"

namespace detinfer {

std::unique_ptr<Model> make_llama(const ConfigMap& config);
std::unique_ptr<Model> make_qwen3(const ConfigMap& config);
std::unique_ptr<Model> make_qwen3_moe(const ConfigMap& config);

/// What the two Qwen3 share.
CausalLmSpec qwen3_config(const ConfigMap& config);

}  // namespace detinfer
