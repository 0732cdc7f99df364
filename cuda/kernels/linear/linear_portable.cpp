#include "core/simd_portable.h"
#include "kernels/linear/linear_kernel.h"

namespace detinfer {

void linear_tile_portable(const LinearTile& tile) { LinearKernel<Portable>::run(tile); }

}  // namespace detinfer
