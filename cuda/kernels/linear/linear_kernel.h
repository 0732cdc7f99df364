// The inner loops of linear on a CPU, for any vector type; compiled once per instruction set (linear_<isa>.cpp).
#pragma once

#include <cstdint>

#include "kernels/linear/k16_chain.h"
#include "kernels/linear/linear_tile.h"

namespace detinfer {

template <class V>
struct LinearKernel {
  static constexpr int kGroups = kPanelColumns / V::kLanes;
  /// Groups of outputs per row, or rows per group, that run interleaved: a chain alone waits for its own latency.
  static constexpr int kInterleaved = 4;

  static void run(const LinearTile& tile) {
    const typename V::RoundTowardZero rounding{};
    (void)rounding;
    int row = 0;
    for (; row + kInterleaved <= tile.row_count; row += kInterleaved) {
      for (int group = 0; group < kGroups; ++group) rows<kInterleaved>(tile, row, group);
    }
    for (; row + 2 <= tile.row_count; row += 2) {
      for (int group = 0; group < kGroups; ++group) rows<2>(tile, row, group);
    }
    for (; row < tile.row_count; ++row) {
      for (int group = 0; group < kGroups; group += kInterleaved) one_row(tile, row, group);
    }
  }

 private:
  static void finish(const LinearTile& tile, int row, int group, typename V::Float acc, uint32_t failed) {
    const int column = group * V::kLanes;
    float* out = tile.out + row * kPanelColumns + column;
    V::store(out, acc);
    for (; failed != 0; failed &= failed - 1) {
      const int lane = __builtin_ctz(failed);
      out[lane] = tile.exact(tile, row, column + lane);
    }
  }

  static __attribute__((noinline)) void one_row(const LinearTile& tile, int row, int group) {
    const ChainRow& x = tile.rows[row];
    const uint32_t* w[kInterleaved];
    typename V::Float acc[kInterleaved];
    StepCheck<V> check;
    for (int g = 0; g < kInterleaved; ++g) {
      w[g] = tile.weights + (group + g) * V::kLanes;
      acc[g] = V::set(0.0f);
    }
    chain_one_row<V, kInterleaved>(w, kPanelColumns, tile.steps, x.values, x.exponents, acc, check);
    const uint32_t failed = check.failed_lanes(x.max_exponent, tile.max_exponent);
    for (int g = 0; g < kInterleaved; ++g) finish(tile, row, group + g, acc[g], failed);
  }

  template <int R>
  static __attribute__((noinline)) void rows(const LinearTile& tile, int row, int group) {
    const float* values[R];
    const uint32_t* exponents[R];
    typename V::Float acc[R];
    StepCheck<V> check;
    int max_exponent = 0;
    for (int r = 0; r < R; ++r) {
      const ChainRow& x = tile.rows[row + r];
      values[r] = x.values;
      exponents[r] = x.exponents;
      max_exponent = x.max_exponent > max_exponent ? x.max_exponent : max_exponent;
      acc[r] = V::set(0.0f);
    }
    chain_rows<V, R>(tile.weights + group * V::kLanes, kPanelColumns, tile.steps, values, exponents, acc, check);
    const uint32_t failed = check.failed_lanes(max_exponent, tile.max_exponent);
    for (int r = 0; r < R; ++r) finish(tile, row + r, group, acc[r], failed);
  }
};

}  // namespace detinfer
