#include "kernels/linear/linear_kernel.cuh"

namespace detinfer::linear {

template void launch_tile<19>(const CUtensorMap&, const CUtensorMap&, const Arguments&, cudaStream_t);
template void launch_tile<20>(const CUtensorMap&, const CUtensorMap&, const Arguments&, cudaStream_t);
template void launch_tile<21>(const CUtensorMap&, const CUtensorMap&, const Arguments&, cudaStream_t);

}  // namespace detinfer::linear
