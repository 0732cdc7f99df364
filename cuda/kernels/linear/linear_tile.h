// One piece of a linear layer: some panels of outputs for some rows. The work of one thread between two looks at the
// shared counter.
#pragma once

#include <cstdint>

#include "kernels/linear/chain_row.h"

namespace detinfer {

/// Outputs per panel of a PackedMatrix.
constexpr int kPanelColumns = 16;

struct LinearTile {
  /// First panel: dwords [panels][k/2][16], two k per dword.
  const uint32_t* weights;
  int panels;
  /// k16 steps.
  int steps;
  /// Largest exponent field of the weights, 255 if there is an infinity or NaN.
  int max_exponent;
  const ChainRow* rows;
  int row_count;
  /// [row_count][out_stride], the first panels·16 columns are written.
  float* out;
  int64_t out_stride;
  /// Computes one output by mma16, for lanes that the fast path can't vouch for.
  float (*exact)(const LinearTile& tile, int row, int column);
};

void linear_tile_avx512(const LinearTile& tile);
void linear_tile_avx2(const LinearTile& tile);
void linear_tile_portable(const LinearTile& tile);

}  // namespace detinfer
