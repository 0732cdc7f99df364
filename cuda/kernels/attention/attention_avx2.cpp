// Only code below the pragma may use the instruction set: inline functions of headers above it may be shared with
// machines that lack it.
#include <algorithm>
#include <cmath>

#include "kernels/attention/attention_tile.h"
#include "kernels/attention/merge.h"
#include "kernels/attention/weight.h"

#if defined(__x86_64__)
#include <immintrin.h>

#pragma GCC target("avx2,fma")
#include "core/simd_avx2.h"
#include "kernels/attention/attention_kernel.h"

namespace detinfer {

void attention_tile_avx2(const AttentionTile& tile, AttentionScratch& scratch) {
  AttentionKernel<Avx2>(tile, scratch).run();
}

}  // namespace detinfer
#endif
