// A row of x in the form that the fast k16 step reads.
#pragma once

#include <cstdint>

#include "core/numerics.h"

namespace detinfer {

/// A row of x prepared for the chain.
struct ChainRow {
  /// The bf16 values as f32. [padded k]
  const float* values;
  /// Their exponent fields, in place (bits & 0x7F80), two per dword. [padded k / 2]
  const uint32_t* exponents;
  /// Largest exponent field; 255 if there is an infinity or NaN.
  int max_exponent;
};

/// Fills the arrays that a ChainRow points to. @param padded k rounded up to 16 @return the largest exponent field
inline int prepare_chain_row(const bf16* x, int k, int padded, float* values, uint32_t* exponents) {
  uint32_t largest = 0;
  for (int i = 0; i < k; ++i) {
    values[i] = to_float(x[i]);
    const uint32_t field = x[i].bits & 0x7F80u;
    largest = field > largest ? field : largest;
  }
  for (int i = k; i < padded; ++i) values[i] = 0.0f;
  for (int i = 0; i < padded / 2; ++i) {
    const uint32_t low = 2 * i < k ? x[2 * i].bits & 0x7F80u : 0;
    const uint32_t high = 2 * i + 1 < k ? x[2 * i + 1].bits & 0x7F80u : 0;
    exponents[i] = low | high << 16;
  }
  return int(largest >> 7);
}

}  // namespace detinfer
