// Operands that reach every corner of the k16 step, and a comparison that prints the first difference.
#pragma once

#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "core/numerics.h"
#include "tests/native/check.h"

namespace detinfer::testing {

enum class Operands {
  kNormal,          // what a model holds
  kSpread,          // magnitudes over dozens of binades
  kWideSpread,      // over the whole range, so that some steps leave the fast path
  kHalfZeros,
  kLargestMantissa, // sums at the edge of a 32-bit integer
  kTiny,            // products below the normal floats
  kHuge,            // sums past the largest float
  kFiniteBits,      // any finite bits, subnormals too
  kAnyBits,         // any bits at all: infinities and NaNs
};

constexpr Operands kAllOperands[] = {Operands::kNormal,     Operands::kSpread,          Operands::kWideSpread,
                                     Operands::kHalfZeros,  Operands::kLargestMantissa, Operands::kTiny,
                                     Operands::kHuge,       Operands::kFiniteBits,      Operands::kAnyBits};

inline bf16 draw(Operands kind, std::mt19937_64& random) {
  std::normal_distribution<float> normal;
  float x = normal(random);
  bf16 bits{uint16_t(random())};
  switch (kind) {
    case Operands::kNormal: break;
    case Operands::kSpread: x = std::ldexp(x, int(normal(random) * 8)); break;
    case Operands::kWideSpread: x = std::ldexp(x, int(normal(random) * 40)); break;
    case Operands::kHalfZeros: x = random() % 2 ? x : 0.0f; break;
    case Operands::kLargestMantissa: x = random() % 32 ? 1.9921875f : -1.9921875f; break;
    case Operands::kTiny: x = std::ldexp(x, -70); break;
    case Operands::kHuge: x = std::ldexp(x, 61); break;
    case Operands::kFiniteBits:
      if ((bits.bits & 0x7F80) == 0x7F80) bits.bits &= 0xBFFF;
      return bits;
    case Operands::kAnyBits: return bits;
  }
  return to_bf16(x);
}

inline std::vector<bf16> draw(Operands kind, size_t count, std::mt19937_64& random) {
  std::vector<bf16> values(count);
  for (bf16& value : values) value = draw(kind, random);
  return values;
}

/// The same bits, or both NaN: which of its NaN patterns a later f32 operation returns is no part of the contract.
inline bool same(float a, float b) { return float_bits(a) == float_bits(b) || (std::isnan(a) && std::isnan(b)); }
inline bool same(bf16 a, bf16 b) { return same(to_float(a), to_float(b)); }

template <class T>
void check_same(const std::vector<T>& actual, const std::vector<T>& expected, const std::string& what) {
  CHECK_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < actual.size(); ++i) {
    CHECK_MESSAGE(same(actual[i], expected[i]), what << ": element " << i);
  }
}

}  // namespace detinfer::testing
