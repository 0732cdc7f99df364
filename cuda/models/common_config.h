// Keys of config.json that families share, in the style of the Hub and in that of transformers 5.
#pragma once

#include "core/config_map.h"
#include "kernels/rope/rope_table.h"

namespace detinfer {

/// Reads rope_parameters (transformers 5) or rope_theta and rope_scaling (Hub).
/// @throws Error kUnsupported for a rope type other than default and llama3, kInvalidModel when both styles are there
/// and disagree.
RopeSpec rope_config(const ConfigMap& config);

/// Refuses, by name, what would change the result of every family: quantization, other types than bfloat16, another
/// activation, biases, sliding windows, partial rotation. @throws Error kUnsupported
void refuse_unsupported(const ConfigMap& config);

/// Outputs of gate and of up, which are computed in groups. @throws Error kUnsupported if they don't fill groups
int intermediate_size(const ConfigMap& config, const std::string& key);

}  // namespace detinfer
