// The scalar functions of the numeric contract (docs/numerics.md), for host and device. Nothing here may be contracted,
// reassociated or replaced by a library's version: compile with -ffp-contract=off (nvcc: -fmad=false). An FMA is used
// only where fma is written.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define DETINFER_HD __host__ __device__ inline
#else
#define DETINFER_HD inline
#endif

namespace detinfer {

/// Version of the contract. Any change of a bit is a new version.
constexpr const char* kNumericContract = "detinfer-numerics/1";

/// Storage of a bfloat16: the upper half of an f32.
struct bf16 {
  uint16_t bits;
};

DETINFER_HD uint32_t float_bits(float x) {
  uint32_t u;
  memcpy(&u, &x, 4);
  return u;
}

DETINFER_HD float bits_float(uint32_t u) {
  float x;
  memcpy(&x, &u, 4);
  return x;
}

DETINFER_HD uint64_t double_bits(double x) {
  uint64_t u;
  memcpy(&u, &x, 8);
  return u;
}

DETINFER_HD double bits_double(uint64_t u) {
  double x;
  memcpy(&x, &u, 8);
  return x;
}

DETINFER_HD float to_float(bf16 x) { return bits_float(uint32_t(x.bits) << 16); }

/// Rounds to nearest even; a NaN becomes the quiet NaN 0x7FFF, as the tensor cores' own NaN does.
DETINFER_HD bf16 to_bf16(float x) {
  const uint32_t u = float_bits(x);
  if ((u & 0x7FFFFFFFu) > 0x7F800000u) return bf16{0x7FFF};
  return bf16{uint16_t((u + 0x7FFFu + ((u >> 16) & 1u)) >> 16)};
}

/// 2^x for x <= 128, with 2^x = 2^-126 below -126; exp2(0) is exactly 1 and every integer is exact. The polynomial is
/// the one recorded with attention on an H200. Relative error below 2.5e-7 (tests/native/numerics_test.cpp).
DETINFER_HD float exp2_f32(float x) {
  const float kRound = 12582912.0f;  // 1.5·2^23: adding it rounds to an integer
  x = x < -126.0f ? -126.0f : x;
  const float shifted = x + kRound;
  const float f = x - (shifted - kRound);
  float p = fmaf(0.0013333558f, f, 0.009618129f);
  p = fmaf(p, f, 0.055504109f);
  p = fmaf(p, f, 0.24022651f);
  p = fmaf(p, f, 0.69314718f);
  p = fmaf(p, f, 1.0f);
  return bits_float(float_bits(p) + (float_bits(shifted) << 23));
}

/// e^c as fraction · 2^n: what exp_f32 is made of.
struct ReducedExp {
  float fraction;
  float n;
  /// n + round: its low bits are those of an integer.
  float shifted;
};

/// Cody-Waite reduction by ln 2 in two parts and a polynomial of degree 6 (minimax for (e^r - 1 - r) / r², error 3.2e-9).
/// @param c within [-104, 88.8] @param round 1.5·2^23, plus an integer to add to n's low bits
DETINFER_HD ReducedExp reduce_exp(float c, float round) {
  const float shifted = fmaf(c, 1.44269504f, round);
  const float n = shifted - round;
  float r = fmaf(n, -0.693145752f, c);  // ln 2 to 15 bits, then the rest
  r = fmaf(n, -1.42860677e-6f, r);
  float p = fmaf(0.00139505381f, r, 0.00836891774f);
  p = fmaf(p, r, 0.041666206f);
  p = fmaf(p, r, 0.166665182f);
  p = fmaf(p, r, 0.5f);
  p = fmaf(p, r, 1.0f);
  p = fmaf(p, r, 1.0f);
  return {p, n, shifted};
}

/// e^x over all of f32, within 1.1 ulp: 0 below -104, infinity above 88.8, NaN for NaN. The scaling is split in two exact
/// factors, so that subnormal results round once.
DETINFER_HD float exp_f32(float x) {
  // No branches, so that a loop over it is vectorised: x is brought into the range of the reduction first, and what
  // belongs to the values outside is put in last.
  float c = x == x ? x : 0.0f;
  c = c > 88.8f ? 88.8f : c;
  c = c < -104.0f ? -104.0f : c;
  const ReducedExp reduced = reduce_exp(c, 12582912.0f);
  const int32_t e = int32_t(reduced.n);
  const int32_t half = e / 2;
  float p = reduced.fraction * bits_float(uint32_t(half + 127) << 23) * bits_float(uint32_t(e - half + 127) << 23);
  p = x > 88.8f ? bits_float(0x7F800000u) : p;
  p = x < -104.0f ? 0.0f : p;
  return x == x ? p : x;
}

/// ln x for finite x > 0 in f64; -infinity at 0, NaN below. x = 2^k·(1 + f) with 1 + f in [sqrt(1/2), sqrt(2)), then the
/// atanh series of s = f / (2 + f) with the minimax coefficients published with fdlibm's e_log.c (below 1 ulp).
DETINFER_HD double log_f64(double x) {
  if (x != x || x < 0.0) return bits_double(0x7FF8000000000000ull);
  if (x == 0.0) return -bits_double(0x7FF0000000000000ull);
  if (double_bits(x) == 0x7FF0000000000000ull) return x;
  int k = 0;
  if (x < 2.2250738585072014e-308) {
    x = x * 18014398509481984.0;  // 2^54
    k = -54;
  }
  uint64_t u = double_bits(x);
  // Adding 1 - sqrt(1/2) in the exponent's units moves the cut between binades to sqrt(1/2).
  u += 0x3FF0000000000000ull - 0x3FE6A09E00000000ull;
  k += int(u >> 52) - 1023;
  u = (u & 0x000FFFFFFFFFFFFFull) + 0x3FE6A09E00000000ull;
  const double f = bits_double(u) - 1.0;
  const double half_square = 0.5 * f * f;
  const double s = f / (2.0 + f);
  const double z = s * s;
  const double w = z * z;
  const double even = w * fma(w, fma(w, 1.531383769920937332e-01, 2.222219843214978396e-01), 3.999999999940941908e-01);
  const double odd =
      z * fma(w, fma(w, fma(w, 1.479819860511658591e-01, 1.818357216161805012e-01), 2.857142874366239149e-01),
              6.666666666666735130e-01);
  const double dk = double(k);
  return dk * 6.93147180369123816490e-01 -
         ((half_square - (s * (half_square + (even + odd)) + dk * 1.90821492927058770002e-10)) - f);
}

/// e^x in f64 for |x| < 700, used for the inverse frequencies of rotary embeddings. Reduction by ln 2 in two parts and
/// the Taylor series to degree 13 of |r| <= 0.347, whose remainder is below 1e-17.
DETINFER_HD double exp_f64(double x) {
  const double n = rint(x * 1.4426950408889634);
  double r = fma(n, -6.93147180369123816490e-01, x);
  r = fma(n, -1.90821492927058770002e-10, r);
  double p = 1.0 / 6227020800.0;
  p = fma(p, r, 1.0 / 479001600.0);
  p = fma(p, r, 1.0 / 39916800.0);
  p = fma(p, r, 1.0 / 3628800.0);
  p = fma(p, r, 1.0 / 362880.0);
  p = fma(p, r, 1.0 / 40320.0);
  p = fma(p, r, 1.0 / 5040.0);
  p = fma(p, r, 1.0 / 720.0);
  p = fma(p, r, 1.0 / 120.0);
  p = fma(p, r, 1.0 / 24.0);
  p = fma(p, r, 1.0 / 6.0);
  p = fma(p, r, 0.5);
  p = fma(p, r, 1.0);
  p = fma(p, r, 1.0);
  return p * bits_double(uint64_t(int64_t(n) + 1023) << 52);
}

struct SinCos {
  double sin;
  double cos;
};

/// sin x and cos x in f64 for 0 <= x < 2^24 (an angle of a rotary embedding: position times inverse frequency).
/// x is reduced by pi/2 in three parts of 33 bits, then Taylor series to degree 17 and 16 of |r| <= pi/4.
DETINFER_HD SinCos sincos_f64(double x) {
  const double n = rint(x * 6.36619772367581382433e-01);
  double r = fma(n, -1.57079632673412561417e+00, x);
  r = fma(n, -6.07710050630396597660e-11, r);
  r = fma(n, -2.02226624871116645580e-21, r);
  const double z = r * r;
  double s = 1.0 / 355687428096000.0;
  s = fma(s, z, -1.0 / 1307674368000.0);
  s = fma(s, z, 1.0 / 6227020800.0);
  s = fma(s, z, -1.0 / 39916800.0);
  s = fma(s, z, 1.0 / 362880.0);
  s = fma(s, z, -1.0 / 5040.0);
  s = fma(s, z, 1.0 / 120.0);
  s = fma(s, z, -1.0 / 6.0);
  s = fma(s * z, r, r);
  double c = 1.0 / 20922789888000.0;
  c = fma(c, z, -1.0 / 87178291200.0);
  c = fma(c, z, 1.0 / 479001600.0);
  c = fma(c, z, -1.0 / 3628800.0);
  c = fma(c, z, 1.0 / 40320.0);
  c = fma(c, z, -1.0 / 720.0);
  c = fma(c, z, 1.0 / 24.0);
  c = fma(c, z, -0.5);
  c = fma(c, z, 1.0);
  switch (int64_t(n) & 3) {
    case 0: return {s, c};
    case 1: return {c, -s};
    case 2: return {-s, -c};
    default: return {-c, s};
  }
}

/// One 64-bit counter-based hash (the finalizer of splitmix64): the source of dummy weights.
DETINFER_HD uint64_t mix64(uint64_t x) {
  x += 0x9E3779B97F4A7C15ull;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}

/// MurmurHash3-32 (seed 0) of four little-endian words.
DETINFER_HD uint32_t murmur3_words(uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  const uint32_t words[4] = {a, b, c, d};
  uint32_t h = 0;
  for (int i = 0; i < 4; ++i) {
    uint32_t k = words[i] * 0xCC9E2D51u;
    k = (k << 15) | (k >> 17);
    k *= 0x1B873593u;
    h ^= k;
    h = (h << 13) | (h >> 19);
    h = h * 5u + 0xE6546B64u;
  }
  h ^= 16u;
  h ^= h >> 16;
  h *= 0x85EBCA6Bu;
  h ^= h >> 13;
  h *= 0xC2B2AE35u;
  return h ^ (h >> 16);
}

/// Gumbel noise of a token: -ln(-ln u), u = (hash + 1/2) / 2^32, so that u is never 0 or 1 and the noise lies in
/// [-3.14, 22.9].
DETINFER_HD double gumbel_noise(uint32_t seed_low, uint32_t seed_high, uint32_t position, uint32_t token) {
  const double u = (double(murmur3_words(seed_low, seed_high, position, token)) + 0.5) * 2.3283064365386962890625e-10;
  return -log_f64(-log_f64(u));
}

/// Probability masses over the vocabulary are summed as 64-bit integers in units of 2^-40: integer addition is
/// associative, so any parallel order gives the same bits. @param x at most 0: a logit less the largest one.
DETINFER_HD uint64_t fixed_mass(float x) { return uint64_t(exp_f32(x) * 1099511627776.0f); }

}  // namespace detinfer
