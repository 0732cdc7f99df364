// The weight of a key in attention, w(x) = bf16(2^x) by the threshold rule. For every float in [-inf, 9) it equals
// ex2.approx.ftz.f32 rounded to bf16, checked exhaustively on an H200 (sm_90). The thresholds were recorded there; they
// lie within 2.3e-7 of where correct rounding would put them.
#pragma once

#include <cstdint>

#include "core/numerics.h"

namespace detinfer {

/// kWeightThresholds[k] for k in 1 .. 128: the least fraction (in 2^-24) whose mantissa rounds up to k. The last entry
/// is past every fraction.
constexpr int32_t kWeightThresholds[130] = {
    0,
    94366, 281996, 468186, 652950, 836322, 1018306, 1198940, 1378230, 1556208, 1732880,
    1908278, 2082410, 2255302, 2426962, 2597418, 2766678, 2934768, 3101692, 3267480, 3432132,
    3595680, 3758124, 3919490, 4079782, 4239024, 4397220, 4554396, 4710550, 4865710, 5019876,
    5173072, 5325300, 5476578, 5626916, 5776328, 5924820, 6072410, 6219102, 6364914, 6509848,
    6653926, 6797146, 6939526, 7081070, 7221796, 7361706, 7500814, 7639122, 7776650, 7913396,
    8049380, 8184596, 8319068, 8452792, 8585786, 8718048, 8849596, 8980430, 9110564, 9239998,
    9368746, 9496810, 9624204, 9750928, 9876994, 10002404, 10127170, 10251294, 10374788, 10497652,
    10619898, 10741526, 10862552, 10982970, 11102796, 11222028, 11340678, 11458746, 11576246, 11693174,
    11809544, 11925352, 12040614, 12155324, 12269498, 12383134, 12496240, 12608816, 12720876, 12832416,
    12943448, 13053968, 13163990, 13273510, 13382540, 13491078, 13599136, 13706710, 13813812, 13920436,
    14026598, 14132294, 14237532, 14342310, 14446642, 14550522, 14653962, 14756958, 14859520, 14961648,
    15063348, 15164620, 15265474, 15365906, 15465926, 15565532, 15664730, 15763522, 15861916, 15959908,
    16057510, 16154714, 16251534, 16347964, 16444014, 16539682, 16634978, 16729896,
    1 << 24};

/// kWeightMantissas.base[i]: how many thresholds are at most i·2^16. No two thresholds lie in one such interval, so one
/// comparison finds the rest.
struct WeightMantissas {
  int32_t base[256];

  constexpr WeightMantissas() : base() {
    for (int i = 0; i < 256; ++i) {
      int count = 0;
      while (count < 128 && kWeightThresholds[count + 1] <= i << 16) ++count;
      base[i] = count;
    }
  }
};

inline constexpr WeightMantissas kWeightMantissas;

/// Bits of w(x) for x < 9: u = floor(x·2^24), or ceil(x·2^24) - 1 below zero; k thresholds are at most the low 24 bits
/// of u; w = 2^(u >> 24)·(1 + k/128), and 0 below -126. NaN for NaN. Scores so large that their own rounding exceeds 128
/// give infinity, as ex2 does.
inline uint32_t attention_weight_bits(float x) {
  float clamped = x > -126.0f ? x : -126.0f;
  clamped = clamped < 0x1.fffffep6f ? clamped : 0x1.fffffep6f;  // the largest float below 128
  const int32_t u = int32_t(clamped * 16777216.0f) - (clamped < 0.0f ? 1 : 0);
  const int32_t fraction = u & 0xFFFFFF;
  const int32_t base = kWeightMantissas.base[fraction >> 16];
  const int32_t mantissa = base + (kWeightThresholds[base + 1] <= fraction ? 1 : 0);
  const uint32_t bits = uint32_t(((u >> 24) + 127) * 128 + mantissa);
  return x != x ? 0x7FFFu : x < -126.0f ? 0u : x >= 128.0f ? 0x7F80u : bits;
}

}  // namespace detinfer
