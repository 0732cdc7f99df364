// What the host passes to the linear kernel, and its launchers: one for each tile, spread over translation units
// because nvcc takes long for each.
#pragma once

#include <cuda.h>
#include <cuda_runtime.h>

#include "kernels/linear/linear_cuda.h"
#include "kernels/linear/linear_schedule.h"

namespace detinfer::linear {

/// Where y goes.
struct Output {
  void* y;
  /// [n] or null
  const bf16* bias;
  /// Rows of x, and of W.
  int rows, n;
  LinearOutput kind;
  /// Whether f32 results should leave L2 first.
  bool streams;
};

struct Arguments {
  Output output;
  LinearSchedule schedule;
};

/// Launches the kernel of kLinearTiles[kIndex].
template <int kIndex>
void launch_tile(const CUtensorMap& x, const CUtensorMap& w, const Arguments& arguments, cudaStream_t stream);

}  // namespace detinfer::linear
