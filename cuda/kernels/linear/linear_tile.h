// One piece of a linear layer: a panel of outputs for some rows.
#pragma once

#include <cstdint>

#include "kernels/linear/chain_row.h"
#include "kernels/linear/linear.h"

namespace detinfer {

struct LinearTile {
  /// The panel: dwords [k/2][64], two k per dword.
  const uint32_t* weights;
  /// k16 steps.
  int steps;
  /// Largest exponent field of the weights, 255 if there is an infinity or NaN.
  int max_exponent;
  const ChainRow* rows;
  int row_count;
  /// [row_count][64]
  float* out;
  /// Computes one output by mma16, for lanes that the fast path can't vouch for.
  float (*exact)(const LinearTile& tile, int row, int column);
};

void linear_tile_avx512(const LinearTile& tile);
void linear_tile_avx2(const LinearTile& tile);
void linear_tile_portable(const LinearTile& tile);

}  // namespace detinfer
