// The fast k16 step on a CPU, for any vector type of core/simd_*.h: lanes are outputs, so no sum is ever split. Include
// it only where the vector type's instruction set is the target.
//
// Weights come as dwords that hold two consecutive k of one output. A step finds E per lane from exponent fields alone
// (in 16-bit halves, two k at once), adds 25 - E to the exponents of the weights, multiplies by x (exact: 8 by 8 bits),
// converts with truncation, adds as integers, and converts the sum back with truncation. That is mma16's rule as long as
//   - every exponent that is added stays in range and E was not set by a zero or subnormal operand, whose field reads as
//     -127: E is at least the largest exponent of x, and of w, less 100;
//   - the smallest bit is a normal float: E >= -101; and 25 - E is not negative, so that a zero stays small: E <= 25;
//   - the integer sum has not wrapped;
//   - there is no infinity or NaN.
// Lanes for which that can't be shown are reported by StepCheck and computed again by mma16.
#pragma once

#include <cstdint>

#include "kernels/linear/chain_row.h"
#include "kernels/mma16/mma16.h"

namespace detinfer {

#define DETINFER_SIMD static inline __attribute__((always_inline))

/// Sums of two exponent fields are biased by 254 and kept at bit 7 of each half.
constexpr int kSumBias = 254;

/// What decides whether a lane's chain was exact.
template <class V>
struct StepCheck {
  typename V::Int smallest, largest, overflowed;

  // Written out, because an implicit constructor would not get the instruction set of the pragma.
  __attribute__((always_inline)) StepCheck() {
    smallest = V::set(0xFFFFFFFFu);
    largest = V::zero();
    overflowed = V::zero();
  }

  /// @param x_exponent, w_exponent largest fields of the operands @return bit i set: lane i must be computed again
  uint32_t failed_lanes(int x_exponent, int w_exponent) const {
    constexpr uint32_t kAll = (1u << V::kLanes) - 1;
    if (x_exponent == 255 || w_exponent == 255) return kAll;
    const int operand = (x_exponent > w_exponent ? x_exponent : w_exponent) - 127 - 100;
    const uint32_t lowest = uint32_t((operand > -101 ? operand : -101) + kSumBias) << 7;
    const uint32_t highest = uint32_t(kStepFractionBits + kSumBias) << 7;
    uint32_t low[V::kLanes], high[V::kLanes], wrapped[V::kLanes];
    V::store(low, smallest);
    V::store(high, largest);
    V::store(wrapped, overflowed);
    uint32_t failed = 0;
    for (int i = 0; i < V::kLanes; ++i) {
      if ((low[i] & 0xFFFF) < lowest || (high[i] & 0xFFFF) > highest || wrapped[i] >> 31) failed |= 1u << i;
    }
    return failed;
  }
};

template <class V>
DETINFER_SIMD typename V::Int accumulator_exponent(typename V::Float acc) {
  return V::add16(V::bit_and(V::high16_twice(V::as_int(acc)), V::set(0x7F807F80u)), V::set(127u << 7 | 127u << 23));
}

/// Takes the largest of the two halves, notes it in the check and returns 25 - E in both halves.
template <class V>
DETINFER_SIMD typename V::Int finish_exponent(typename V::Int largest, StepCheck<V>& check) {
  largest = V::max16(largest, V::swap16(largest));
  check.smallest = V::min16(check.smallest, largest);
  check.largest = V::max16(check.largest, largest);
  constexpr uint32_t kShift = uint32_t(kStepFractionBits + kSumBias) << 7;
  return V::sub16(V::set(kShift | kShift << 16), largest);
}

/// acc·2^(25-E) + products, truncated to f32 and scaled back. @param shift_high 25 - E at bit 23
template <class V>
DETINFER_SIMD typename V::Float finish_sum(typename V::Float acc, typename V::Int shift_high, typename V::Int products,
                                           StepCheck<V>& check) {
  const typename V::Int scale = V::add(shift_high, V::set(127u << 23));
  const typename V::Int carried = V::truncate(V::mul(acc, V::as_float(scale)));
  const typename V::Int sum = V::add(products, carried);
  check.overflowed = V::bit_or(check.overflowed, V::overflow(products, carried, sum));
  return V::mul(V::to_float_toward_zero(sum), V::as_float(V::sub(V::set(254u << 23), scale)));
}

/// `steps` k16 steps of one row against `G` groups of V::kLanes outputs.
/// @param w first dword of each group @param stride dwords from one pair of k to the next
/// @param values, exponents the row, from the first k on @param acc accumulators, updated
template <class V, int G>
DETINFER_SIMD void chain_one_row(const uint32_t* const (&w)[G], int64_t stride, int steps, const float* values,
                                 const uint32_t* exponents, typename V::Float (&acc)[G], StepCheck<V>& check) {
  const typename V::Int field = V::set(0x7F807F80u), high = V::set(0xFFFF0000u);
  for (int step = 0; step < steps; ++step, values += kStepTerms, exponents += kStepTerms / 2) {
    const int64_t base = step * (kStepTerms / 2) * stride;
    typename V::Int largest[G], shift[G], even[G], odd[G];
#pragma GCC unroll 8
    for (int g = 0; g < G; ++g) largest[g] = accumulator_exponent<V>(acc[g]);
#pragma GCC unroll 8
    for (int j = 0; j < kStepTerms / 2; ++j) {
      const typename V::Int x = V::set(exponents[j]);
#pragma GCC unroll 8
      for (int g = 0; g < G; ++g) {
        const typename V::Int sum = V::add16(V::bit_and(V::load(w[g] + base + j * stride), field), x);
        largest[g] = V::max16(largest[g], sum);
      }
    }
#pragma GCC unroll 8
    for (int g = 0; g < G; ++g) {
      shift[g] = finish_exponent<V>(largest[g], check);
      even[g] = odd[g] = V::zero();
    }
#pragma GCC unroll 8
    for (int j = 0; j < kStepTerms / 2; ++j) {
      const typename V::Float x0 = V::set(values[2 * j]), x1 = V::set(values[2 * j + 1]);
#pragma GCC unroll 8
      for (int g = 0; g < G; ++g) {
        const typename V::Int scaled = V::add16(V::load(w[g] + base + j * stride), shift[g]);
        even[g] = V::add(even[g], V::truncate(V::mul(V::as_float(V::low_to_high16(scaled)), x0)));
        odd[g] = V::add(odd[g], V::truncate(V::mul(V::as_float(V::bit_and(scaled, high)), x1)));
      }
    }
#pragma GCC unroll 8
    for (int g = 0; g < G; ++g) {
      acc[g] = finish_sum<V>(acc[g], V::low_to_high16(shift[g]), V::add(even[g], odd[g]), check);
    }
  }
}

/// `steps` k16 steps of `R` rows against one group of V::kLanes outputs, whose weights are widened once for all rows.
template <class V, int R>
DETINFER_SIMD void chain_rows(const uint32_t* w, int64_t stride, int steps, const float* const (&values)[R],
                              const uint32_t* const (&exponents)[R], typename V::Float (&acc)[R],
                              StepCheck<V>& check) {
  const typename V::Int field = V::set(0x7F807F80u), high = V::set(0xFFFF0000u);
  for (int step = 0; step < steps; ++step) {
    const int64_t base = step * (kStepTerms / 2) * stride;
    const int k = step * kStepTerms;
    typename V::Int largest[R], shift[R], sum[R];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) largest[r] = accumulator_exponent<V>(acc[r]);
#pragma GCC unroll 8
    for (int j = 0; j < kStepTerms / 2; ++j) {
      const typename V::Int we = V::bit_and(V::load(w + base + j * stride), field);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) largest[r] = V::max16(largest[r], V::add16(we, V::set(exponents[r][k / 2 + j])));
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      shift[r] = V::low_to_high16(finish_exponent<V>(largest[r], check));
      sum[r] = V::zero();
    }
#pragma GCC unroll 8
    for (int j = 0; j < kStepTerms / 2; ++j) {
      const typename V::Int pair = V::load(w + base + j * stride);
      const typename V::Int w0 = V::low_to_high16(pair), w1 = V::bit_and(pair, high);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const typename V::Float x0 = V::set(values[r][k + 2 * j]), x1 = V::set(values[r][k + 2 * j + 1]);
        sum[r] = V::add(sum[r], V::truncate(V::mul(V::as_float(V::add(w0, shift[r])), x0)));
        sum[r] = V::add(sum[r], V::truncate(V::mul(V::as_float(V::add(w1, shift[r])), x1)));
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) acc[r] = finish_sum<V>(acc[r], shift[r], sum[r], check);
  }
}

#undef DETINFER_SIMD

}  // namespace detinfer
