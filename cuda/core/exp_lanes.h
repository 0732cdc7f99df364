// exp_f32 without branches, so that a loop over it is vectorised. Same bits (tests/native/exp_lanes_test.cpp).
#pragma once

#include "core/numerics.h"

namespace detinfer {

inline float exp_lane(float x) {
  // Every step runs for every x; values outside the range of the reduction are replaced before and after it.
  float c = x == x ? x : 0.0f;
  c = c > 88.8f ? 88.8f : c;
  c = c < -104.0f ? -104.0f : c;
  const float kRound = 12582912.0f;
  const float shifted = fmaf(c, 1.44269504f, kRound);
  const float n = shifted - kRound;
  float r = fmaf(n, -0.693145752f, c);
  r = fmaf(n, -1.42860677e-6f, r);
  float p = fmaf(0.00139304355f, r, 0.00833336077f);
  p = fmaf(p, r, 0.0416664667f);
  p = fmaf(p, r, 0.166666657f);
  p = fmaf(p, r, 0.5f);
  p = fmaf(p, r, 1.0f);
  p = fmaf(p, r, 1.0f);
  const int32_t e = int32_t(n);
  const int32_t half = e / 2;
  p = p * bits_float(uint32_t(half + 127) << 23) * bits_float(uint32_t(e - half + 127) << 23);
  p = x > 88.8f ? bits_float(0x7F800000u) : p;
  p = x < -104.0f ? 0.0f : p;
  return x == x ? p : x;
}

}  // namespace detinfer
