#include "kernels/moe/expert_kernel.cuh"

namespace detinfer::expert {

template void launch_tile<2>(const CUtensorMap&, const Arguments&, cudaStream_t);

}  // namespace detinfer::expert
