#include "attention/flashinfer/prefill_kernel.cuh"

namespace detinfer::flashinfer {

template void launch_prefill<64>(const PrefillArgs& args, cudaStream_t stream);
template int tile_rows<64>();
template int total_floats<64>();

}  // namespace detinfer::flashinfer
