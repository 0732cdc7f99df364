// One k16 step of a Hopper tensor core, d = a·b + c over 16 products of bf16 with an f32 accumulator: the readable
// reference of every matrix product in the contract. The rule reproduces every output recorded on an H200
// (tests/fixtures/mma16), for mma.sync.m16n8k16 and wgmma alike:
//   - products are exact; E is the largest e_a + e_b of the nonzero products and e_c of a nonzero c, where an operand is
//     m·2^e with 1 <= m < 2 (e = -126 and m < 1 when subnormal), but at least -133;
//   - every magnitude is cut to a multiple of 2^(E-25), dropping bits; the signed terms are summed exactly;
//   - the sum is truncated toward zero to f32 (subnormals are kept, overflow is an infinity, zero is +0);
//   - a NaN, 0·∞ or infinities of both signs give 0x7FFFFFFF; otherwise an infinity wins.
#pragma once

#include <cstdint>

#include "core/numerics.h"

namespace detinfer {

/// Bits of a term that a step keeps below the largest exponent.
constexpr int kStepFractionBits = 25;
/// The largest exponent of a step counts as at least this.
constexpr int kStepLeastExponent = -133;
/// Products per step.
constexpr int kStepTerms = 16;

/// @param a, b 16 operands each, `b_stride` apart in b @param c accumulator @return a·b + c by the rule above
float mma16(const bf16* a, const bf16* b, int64_t b_stride, float c);

}  // namespace detinfer
