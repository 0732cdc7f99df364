// Only code below the pragma may use the instruction set: inline functions of headers above it may be shared with
// machines that lack it.
#include <algorithm>
#include <cmath>

#include "kernels/attention/attention_tile.h"
#include "kernels/attention/merge.h"
#include "kernels/attention/weight.h"

#if defined(__x86_64__)
#include <immintrin.h>
// GCC 12 takes the undefined operand of its own intrinsics for a mistake.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,fma")
#include "core/simd_avx512.h"
#include "kernels/attention/attention_kernel.h"

namespace detinfer {

void attention_tile_avx512(const AttentionTile& tile, AttentionScratch& scratch) {
  AttentionKernel<Avx512>(tile, scratch).run();
}

}  // namespace detinfer
#endif
