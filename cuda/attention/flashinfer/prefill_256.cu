#include "attention/flashinfer/prefill_kernel.cuh"

namespace detinfer::flashinfer {

template void launch_prefill<256>(const PrefillArgs& args, cudaStream_t stream);
template int tile_rows<256>();
template int total_floats<256>();

}  // namespace detinfer::flashinfer
