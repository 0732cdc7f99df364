#include "core/simd_portable.h"
#include "kernels/attention/attention_kernel.h"

namespace detinfer {

void attention_tile_portable(const AttentionTile& tile, AttentionScratch& scratch) {
  AttentionKernel<Portable>(tile, scratch).run();
}

}  // namespace detinfer
