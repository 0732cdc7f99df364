// Reproducible weights without a checkpoint (--load-format dummy). Element i of a tensor depends on its name, i and the
// scale alone, so that every device can make the same bits:
//   h = FNV-1a 64 of the name's bytes
//   u = 16 bits of mix64(h + i/4), counted from the low end by i mod 4
//   value = bf16(mean + float(2u - 65535) · scale), the product and the sum each rounded to f32,
//   scale = f32(deviation · sqrt(3) / 65535): a uniform distribution with that standard deviation.
// Means and deviations are declared with the tensors (layers/parameter.h, models/causal_lm.cpp).
#pragma once

#include <memory>
#include <string>

#include "engine/weight_source.h"

namespace detinfer {

inline uint64_t dummy_hash(const std::string& name) {
  uint64_t hash = 0xCBF29CE484222325ull;
  for (unsigned char c : name) hash = (hash ^ c) * 0x100000001B3ull;
  return hash;
}

/// @param u 16 uniform bits
DETINFER_HD bf16 dummy_value(uint32_t u, float mean, float scale) {
  return to_bf16(mean + float(int32_t(2 * u) - 65535) * scale);
}

std::unique_ptr<WeightSource> make_dummy_weights();

}  // namespace detinfer
