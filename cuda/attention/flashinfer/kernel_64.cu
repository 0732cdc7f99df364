#include "attention/flashinfer/kernel_impl.cuh"

namespace detinfer::flashinfer {

template void launch_step<64>(const FlashinferArgs& args, cudaStream_t stream);

}  // namespace detinfer::flashinfer
