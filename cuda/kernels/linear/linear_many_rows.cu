// The largest tiles.
#include "kernels/linear/linear_kernel.cuh"

namespace detinfer::linear {

template void launch_tile<12>(const CUtensorMap&, const CUtensorMap&, const Arguments&, cudaStream_t);
template void launch_tile<13>(const CUtensorMap&, const CUtensorMap&, const Arguments&, cudaStream_t);
template void launch_tile<14>(const CUtensorMap&, const CUtensorMap&, const Arguments&, cudaStream_t);

}  // namespace detinfer::linear
