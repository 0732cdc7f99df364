// Vector operations of the CPU path on AVX-512: 16 lanes of 32 bits. Include only inside `#pragma GCC target`.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace detinfer {

#define DETINFER_SIMD static inline __attribute__((always_inline))

struct Avx512 {
  static constexpr int kLanes = 16;
  using Int = __m512i;
  using Float = __m512;
  /// Rounding toward zero is part of the conversion instruction, so the mode need not change.
  struct RoundTowardZero {};

  DETINFER_SIMD Int load(const uint32_t* p) { return _mm512_loadu_si512(p); }
  DETINFER_SIMD Float load(const float* p) { return _mm512_loadu_ps(p); }
  DETINFER_SIMD void store(float* p, Float x) { _mm512_storeu_ps(p, x); }
  DETINFER_SIMD void store(uint32_t* p, Int x) { _mm512_storeu_si512(p, x); }
  DETINFER_SIMD Int set(uint32_t x) { return _mm512_set1_epi32(int(x)); }
  DETINFER_SIMD Float set(float x) { return _mm512_set1_ps(x); }
  DETINFER_SIMD Int zero() { return _mm512_setzero_si512(); }
  DETINFER_SIMD Int as_int(Float x) { return _mm512_castps_si512(x); }
  DETINFER_SIMD Float as_float(Int x) { return _mm512_castsi512_ps(x); }
  DETINFER_SIMD Int bit_and(Int a, Int b) { return _mm512_and_si512(a, b); }
  DETINFER_SIMD Int bit_or(Int a, Int b) { return _mm512_or_si512(a, b); }
  DETINFER_SIMD Int add(Int a, Int b) { return _mm512_add_epi32(a, b); }
  DETINFER_SIMD Int sub(Int a, Int b) { return _mm512_sub_epi32(a, b); }
  DETINFER_SIMD Int add16(Int a, Int b) { return _mm512_add_epi16(a, b); }
  DETINFER_SIMD Int sub16(Int a, Int b) { return _mm512_sub_epi16(a, b); }
  DETINFER_SIMD Int max16(Int a, Int b) { return _mm512_max_epu16(a, b); }
  DETINFER_SIMD Int min16(Int a, Int b) { return _mm512_min_epu16(a, b); }
  DETINFER_SIMD Int low_to_high16(Int x) { return _mm512_slli_epi32(x, 16); }
  DETINFER_SIMD Int swap16(Int x) { return _mm512_ror_epi32(x, 16); }
  /// Both halves of each lane become its upper half.
  DETINFER_SIMD Int high16_twice(Int x) {
    return _mm512_shuffle_epi8(x, _mm512_set4_epi32(0x0F0E0F0E, 0x0B0A0B0A, 0x07060706, 0x03020302));
  }
  DETINFER_SIMD Float mul(Float a, Float b) { return _mm512_mul_ps(a, b); }
  DETINFER_SIMD Int truncate(Float x) { return _mm512_cvttps_epi32(x); }
  DETINFER_SIMD Float to_float_toward_zero(Int x) {
    return _mm512_cvt_roundepi32_ps(x, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC);
  }
  /// Sign bit set where sum = a + b has overflowed.
  DETINFER_SIMD Int overflow(Int a, Int b, Int sum) { return _mm512_ternarylogic_epi32(a, b, sum, 0x42); }
};

#undef DETINFER_SIMD

}  // namespace detinfer
