// Vector operations of the CPU path on AVX2: 8 lanes of 32 bits. Include only inside `#pragma GCC target`.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace detinfer {

#define DETINFER_SIMD static inline __attribute__((always_inline))

struct Avx2 {
  static constexpr int kLanes = 8;
  using Int = __m256i;
  using Float = __m256;
  /// Rounds toward zero while it lives. Only conversions of integers see it: the products and scalings of a k16 step
  /// are exact. The compiler knows nothing of the mode, so fences keep what goes through memory on its side of a change.
  struct RoundTowardZero {
    unsigned saved;
    RoundTowardZero() : saved(_mm_getcsr()) { change(saved | 0x6000u); }
    ~RoundTowardZero() { change(saved); }

   private:
    DETINFER_SIMD void change(unsigned mode) {
      __asm__ volatile("" ::: "memory");
      _mm_setcsr(mode);
      __asm__ volatile("" ::: "memory");
    }
  };

  DETINFER_SIMD Int load(const uint32_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
  DETINFER_SIMD Float load(const float* p) { return _mm256_loadu_ps(p); }
  DETINFER_SIMD void store(float* p, Float x) { _mm256_storeu_ps(p, x); }
  DETINFER_SIMD void store(uint32_t* p, Int x) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), x); }
  DETINFER_SIMD Int set(uint32_t x) { return _mm256_set1_epi32(int(x)); }
  DETINFER_SIMD Float set(float x) { return _mm256_set1_ps(x); }
  DETINFER_SIMD Int zero() { return _mm256_setzero_si256(); }
  DETINFER_SIMD Int as_int(Float x) { return _mm256_castps_si256(x); }
  DETINFER_SIMD Float as_float(Int x) { return _mm256_castsi256_ps(x); }
  DETINFER_SIMD Int bit_and(Int a, Int b) { return _mm256_and_si256(a, b); }
  DETINFER_SIMD Int bit_or(Int a, Int b) { return _mm256_or_si256(a, b); }
  DETINFER_SIMD Int add(Int a, Int b) { return _mm256_add_epi32(a, b); }
  DETINFER_SIMD Int sub(Int a, Int b) { return _mm256_sub_epi32(a, b); }
  DETINFER_SIMD Int add16(Int a, Int b) { return _mm256_add_epi16(a, b); }
  DETINFER_SIMD Int sub16(Int a, Int b) { return _mm256_sub_epi16(a, b); }
  DETINFER_SIMD Int max16(Int a, Int b) { return _mm256_max_epu16(a, b); }
  DETINFER_SIMD Int min16(Int a, Int b) { return _mm256_min_epu16(a, b); }
  DETINFER_SIMD Int low_to_high16(Int x) { return _mm256_slli_epi32(x, 16); }
  DETINFER_SIMD Int swap16(Int x) { return bit_or(_mm256_slli_epi32(x, 16), _mm256_srli_epi32(x, 16)); }
  DETINFER_SIMD Int high16_twice(Int x) {
    return _mm256_shuffle_epi8(x, _mm256_set_epi32(0x0F0E0F0E, 0x0B0A0B0A, 0x07060706, 0x03020302, 0x0F0E0F0E,
                                                   0x0B0A0B0A, 0x07060706, 0x03020302));
  }
  DETINFER_SIMD Float mul(Float a, Float b) { return _mm256_mul_ps(a, b); }
  DETINFER_SIMD Int truncate(Float x) { return _mm256_cvttps_epi32(x); }
  DETINFER_SIMD Float to_float_toward_zero(Int x) { return _mm256_cvtepi32_ps(x); }
  DETINFER_SIMD Int overflow(Int a, Int b, Int sum) {
    return _mm256_and_si256(_mm256_xor_si256(a, sum), _mm256_xor_si256(b, sum));
  }
};

#undef DETINFER_SIMD

}  // namespace detinfer
