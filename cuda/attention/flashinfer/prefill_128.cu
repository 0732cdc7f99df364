#include "attention/flashinfer/prefill_kernel.cuh"

namespace detinfer::flashinfer {

template void launch_prefill<128>(const PrefillArgs& args, cudaStream_t stream);
template int tile_rows<128>();
template int total_floats<128>();

}  // namespace detinfer::flashinfer
