// Only code below the pragma may use the instruction set: inline functions of headers above it may be shared with
// machines that lack it.
#include "kernels/linear/linear_tile.h"

#if defined(__x86_64__)
#include <immintrin.h>
#pragma GCC target("avx2,fma")
#include "core/simd_avx2.h"
#include "kernels/linear/linear_kernel.h"

namespace detinfer {

void linear_tile_avx2(const LinearTile& tile) { LinearKernel<Avx2>::run(tile); }

}  // namespace detinfer
#endif
