// What a linear and the linears of experts share on a CPU: rows prepared for the chain, and a panel of outputs for some
// of them.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/linear/chain_row.h"
#include "kernels/linear/linear.h"

namespace detinfer {

/// Rows per tile: their prepared values stay in the second-level cache while the tile's weights pass.
constexpr int kTileRows = 64;
/// Multiply-adds worth a look at the shared counter.
constexpr int64_t kGrainWork = 200000;

/// Rows of x in the form that the chain reads.
struct PreparedRows {
  std::vector<float> values;
  std::vector<uint32_t> exponents;
  std::vector<ChainRow> rows;

  /// @param x [count][k] @param padded k rounded up to 16
  void prepare(ThreadPool& pool, const bf16* x, int count, int k, int padded);
};

/// The outputs of one panel of w. @param rows [count], at most kTileRows @param out [count][kPanelColumns]
void multiply_panel(const PackedMatrix& w, int panel, const ChainRow* rows, int count, float* out);

}  // namespace detinfer
