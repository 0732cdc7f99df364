#include "kernels/mma16/mma16.h"

#include <algorithm>

namespace detinfer {
namespace {

/// A finite operand is sign · mantissa · 2^(exponent - fraction bits of its format).
struct Operand {
  int sign;
  int exponent;
  int64_t mantissa;
  bool infinite;
  bool nan;
};

Operand decode(uint32_t bits, int fraction_bits) {
  const int field = (bits >> fraction_bits) & 0xFF;
  const int64_t fraction = bits & ((1u << fraction_bits) - 1);
  Operand x{};
  x.sign = (bits >> (fraction_bits + 8)) ? -1 : 1;
  x.infinite = field == 255 && fraction == 0;
  x.nan = field == 255 && fraction != 0;
  x.exponent = field == 0 ? -126 : field - 127;
  x.mantissa = field == 0 ? fraction : fraction | (int64_t(1) << fraction_bits);
  return x;
}

/// A zero has no exponent, so its `bits` mean nothing.
int64_t shift_right(int64_t magnitude, int bits) { return magnitude == 0 || bits > 62 ? 0 : magnitude >> bits; }

/// sum · 2^(exponent - 25), truncated toward zero to f32.
float truncate_to_float(int64_t sum, int exponent) {
  if (sum == 0) return 0.0f;
  const uint32_t sign = sum < 0 ? 0x80000000u : 0u;
  const uint64_t magnitude = sum < 0 ? uint64_t(-sum) : uint64_t(sum);
  const int top = 63 - __builtin_clzll(magnitude);
  const int result_exponent = top + exponent - kStepFractionBits;
  if (result_exponent > 127) return bits_float(sign | 0x7F800000u);
  // Weight of the last bit kept: 2^(e-23), or 2^-149 for a subnormal result.
  const int last = std::max(result_exponent, -126) - 23;
  const int shift = last - (exponent - kStepFractionBits);
  const uint64_t kept = shift > 63 ? 0 : shift >= 0 ? magnitude >> shift : magnitude << -shift;
  if (kept == 0) return 0.0f;
  if (result_exponent < -126) return bits_float(sign | uint32_t(kept));
  return bits_float(sign | uint32_t(result_exponent + 127) << 23 | (uint32_t(kept) & 0x7FFFFFu));
}

}  // namespace

float mma16(const bf16* a, const bf16* b, int64_t b_stride, float c) {
  constexpr int kNothing = -1000000;
  const Operand acc = decode(float_bits(c), 23);
  Operand x[kStepTerms], y[kStepTerms];
  bool nan = acc.nan;
  bool positive_infinity = acc.infinite && acc.sign > 0;
  bool negative_infinity = acc.infinite && acc.sign < 0;
  int largest = acc.mantissa != 0 ? acc.exponent : kNothing;
  for (int i = 0; i < kStepTerms; ++i) {
    x[i] = decode(a[i].bits, 7);
    y[i] = decode(b[i * b_stride].bits, 7);
    nan |= x[i].nan || y[i].nan;
    const bool zero = x[i].mantissa == 0 || y[i].mantissa == 0;
    if (x[i].infinite || y[i].infinite) {
      nan |= zero;
      (x[i].sign * y[i].sign > 0 ? positive_infinity : negative_infinity) = true;
    } else if (!zero) {
      largest = std::max(largest, x[i].exponent + y[i].exponent);
    }
  }
  if (nan || (positive_infinity && negative_infinity)) return bits_float(0x7FFFFFFFu);
  if (positive_infinity) return bits_float(0x7F800000u);
  if (negative_infinity) return bits_float(0xFF800000u);
  if (largest == kNothing) return 0.0f;
  largest = std::max(largest, kStepLeastExponent);

  // A product has 14 fraction bits and c has 23; both are brought to 25 below the largest exponent.
  int64_t sum = acc.sign * shift_right(acc.mantissa << (kStepFractionBits - 23), largest - acc.exponent);
  for (int i = 0; i < kStepTerms; ++i) {
    const int64_t product = x[i].mantissa * y[i].mantissa;
    if (product == 0) continue;
    const int64_t magnitude =
        shift_right(product << (kStepFractionBits - 14), largest - (x[i].exponent + y[i].exponent));
    sum += x[i].sign * y[i].sign * magnitude;
  }
  return truncate_to_float(sum, largest);
}

}  // namespace detinfer
