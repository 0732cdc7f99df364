// Only code below the pragma may use the instruction set: inline functions of headers above it may be shared with
// machines that lack it.
#include "kernels/linear/linear_tile.h"

#if defined(__x86_64__)
#include <immintrin.h>
// GCC 12 takes the undefined operand of its own intrinsics for a mistake.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq")
#include "core/simd_avx512.h"
#include "kernels/linear/linear_kernel.h"

namespace detinfer {

void linear_tile_avx512(const LinearTile& tile) { LinearKernel<Avx512>::run(tile); }

}  // namespace detinfer
#endif
