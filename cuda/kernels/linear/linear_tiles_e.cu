#include "kernels/linear/linear_kernel.cuh"

namespace detinfer::linear {

template void launch_tile<22>(const CUtensorMap&, const CUtensorMap&, const Arguments&, cudaStream_t);
template void launch_tile<23>(const CUtensorMap&, const CUtensorMap&, const Arguments&, cudaStream_t);

}  // namespace detinfer::linear
