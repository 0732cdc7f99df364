#include "kernels/linear/linear_kernel.cuh"

namespace detinfer::linear {

template void launch_tile<15>(const CUtensorMap&, const CUtensorMap&, const Arguments&, cudaStream_t);
template void launch_tile<16>(const CUtensorMap&, const CUtensorMap&, const Arguments&, cudaStream_t);
template void launch_tile<17>(const CUtensorMap&, const CUtensorMap&, const Arguments&, cudaStream_t);
template void launch_tile<18>(const CUtensorMap&, const CUtensorMap&, const Arguments&, cudaStream_t);

}  // namespace detinfer::linear
