// The inner loops of linear on a CPU, for any vector type; compiled once per instruction set (linear_<isa>.cpp).
#pragma once

#include <cstdint>

#include "kernels/linear/k16_chain.h"
#include "kernels/linear/linear_tile.h"

namespace detinfer {

template <class V>
struct LinearKernel {
  static constexpr int kGroupsPerPanel = kPanelColumns / V::kLanes;
  /// Groups of outputs per row, or rows per group, that run interleaved: a chain alone waits for its own latency.
  static constexpr int kInterleaved = 4;

  static void run(const LinearTile& tile) {
    const typename V::RoundTowardZero rounding{};
    (void)rounding;
    const int groups = tile.panels * kGroupsPerPanel;
    int row = 0;
    for (; row + kInterleaved <= tile.row_count; row += kInterleaved) {
      for (int group = 0; group < groups; ++group) rows<kInterleaved>(tile, row, group);
    }
    for (; row + 2 <= tile.row_count && tile.row_count > 1; row += 2) {
      for (int group = 0; group < groups; ++group) rows<2>(tile, row, group);
    }
    for (; row < tile.row_count; ++row) {
      int group = 0;
      for (; group + kInterleaved <= groups; group += kInterleaved) one_row<kInterleaved>(tile, row, group);
      for (; group < groups; ++group) one_row<1>(tile, row, group);
    }
  }

 private:
  static const uint32_t* group_weights(const LinearTile& tile, int group) {
    const int64_t panel = group / kGroupsPerPanel;
    return tile.weights + panel * tile.steps * (kStepTerms / 2) * kPanelColumns + group % kGroupsPerPanel * V::kLanes;
  }

  static void finish(const LinearTile& tile, int row, int group, typename V::Float acc, uint32_t failed) {
    const int column = group * V::kLanes;
    float* out = tile.out + int64_t(row) * tile.out_stride + column;
    V::store(out, acc);
    for (; failed != 0; failed &= failed - 1) {
      const int lane = __builtin_ctz(failed);
      out[lane] = tile.exact(tile, row, column + lane);
    }
  }

  template <int G>
  static __attribute__((noinline)) void one_row(const LinearTile& tile, int row, int group) {
    const ChainRow& x = tile.rows[row];
    const uint32_t* w[G];
    typename V::Float acc[G];
    StepCheck<V> check;
    for (int g = 0; g < G; ++g) {
      w[g] = group_weights(tile, group + g);
      acc[g] = V::set(0.0f);
    }
    chain_one_row<V, G>(w, kPanelColumns, tile.steps, x.values, x.exponents, acc, check);
    const uint32_t failed = check.failed_lanes(x.max_exponent, tile.max_exponent);
    for (int g = 0; g < G; ++g) finish(tile, row, group + g, acc[g], failed);
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
    chain_rows<V, R>(group_weights(tile, group), kPanelColumns, tile.steps, values, exponents, acc, check);
    const uint32_t failed = check.failed_lanes(max_exponent, tile.max_exponent);
    for (int r = 0; r < R; ++r) finish(tile, row + r, group, acc[r], failed);
  }
};

}  // namespace detinfer
