// Tiles of up to 64 rows.
#include "kernels/linear/linear_kernel.cuh"

namespace detinfer::linear {

template void launch_tile<0>(const CUtensorMap&, const CUtensorMap&, const Arguments&, cudaStream_t);
template void launch_tile<1>(const CUtensorMap&, const CUtensorMap&, const Arguments&, cudaStream_t);
template void launch_tile<2>(const CUtensorMap&, const CUtensorMap&, const Arguments&, cudaStream_t);
template void launch_tile<3>(const CUtensorMap&, const CUtensorMap&, const Arguments&, cudaStream_t);
template void launch_tile<4>(const CUtensorMap&, const CUtensorMap&, const Arguments&, cudaStream_t);
template void launch_tile<5>(const CUtensorMap&, const CUtensorMap&, const Arguments&, cudaStream_t);
template void launch_tile<6>(const CUtensorMap&, const CUtensorMap&, const Arguments&, cudaStream_t);

}  // namespace detinfer::linear
