// Vector operations of the CPU path on any machine, with the compiler's own vectors: 4 lanes of 32 bits.
#pragma once

#include <cfenv>
#include <cstdint>
#include <cstring>

namespace detinfer {

#define DETINFER_SIMD static inline __attribute__((always_inline))

struct Portable {
  static constexpr int kLanes = 4;
  typedef uint32_t Int __attribute__((vector_size(16)));
  typedef int32_t Signed __attribute__((vector_size(16)));
  typedef uint16_t Half __attribute__((vector_size(16)));
  typedef float Float __attribute__((vector_size(16)));
  /// Rounds toward zero while it lives. Only conversions of integers see it: the products and scalings of a k16 step
  /// are exact. The compiler knows nothing of the mode, so fences keep what goes through memory on its side of a change.
  struct RoundTowardZero {
    int saved;
    RoundTowardZero() : saved(fegetround()) { change(FE_TOWARDZERO); }
    ~RoundTowardZero() { change(saved); }

   private:
    DETINFER_SIMD void change(int mode) {
      __asm__ volatile("" ::: "memory");
      fesetround(mode);
      __asm__ volatile("" ::: "memory");
    }
  };

  DETINFER_SIMD Int load(const uint32_t* p) {
    Int x;
    memcpy(&x, p, sizeof x);
    return x;
  }
  DETINFER_SIMD Float load(const float* p) {
    Float x;
    memcpy(&x, p, sizeof x);
    return x;
  }
  DETINFER_SIMD void store(float* p, Float x) { memcpy(p, &x, sizeof x); }
  DETINFER_SIMD void store(uint32_t* p, Int x) { memcpy(p, &x, sizeof x); }
  DETINFER_SIMD Int set(uint32_t x) { return Int{x, x, x, x}; }
  DETINFER_SIMD Float set(float x) { return Float{x, x, x, x}; }
  DETINFER_SIMD Int zero() { return set(0u); }
  DETINFER_SIMD Int as_int(Float x) { return Int(x); }
  DETINFER_SIMD Float as_float(Int x) { return Float(x); }
  DETINFER_SIMD Int bit_and(Int a, Int b) { return a & b; }
  DETINFER_SIMD Int bit_or(Int a, Int b) { return a | b; }
  DETINFER_SIMD Int add(Int a, Int b) { return a + b; }
  DETINFER_SIMD Int sub(Int a, Int b) { return a - b; }
  DETINFER_SIMD Int add16(Int a, Int b) { return Int(Half(a) + Half(b)); }
  DETINFER_SIMD Int sub16(Int a, Int b) { return Int(Half(a) - Half(b)); }
  DETINFER_SIMD Int max16(Int a, Int b) { return Int(Half(a) > Half(b) ? Half(a) : Half(b)); }
  DETINFER_SIMD Int min16(Int a, Int b) { return Int(Half(a) < Half(b) ? Half(a) : Half(b)); }
  DETINFER_SIMD Int low_to_high16(Int x) { return x << 16; }
  DETINFER_SIMD Int swap16(Int x) { return (x << 16) | (x >> 16); }
  DETINFER_SIMD Int high16_twice(Int x) { return (x & 0xFFFF0000u) | (x >> 16); }
  DETINFER_SIMD Float mul(Float a, Float b) { return a * b; }
  /// Saturation is not needed: a step whose terms leave the range of an int32 is flagged by its exponent.
  DETINFER_SIMD Int truncate(Float x) { return Int(__builtin_convertvector(x, Signed)); }
  DETINFER_SIMD Float to_float_toward_zero(Int x) { return __builtin_convertvector(Signed(x), Float); }
  DETINFER_SIMD Int overflow(Int a, Int b, Int sum) { return (a ^ sum) & (b ^ sum); }
};

#undef DETINFER_SIMD

}  // namespace detinfer
