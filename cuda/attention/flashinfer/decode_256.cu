#include "attention/decode/kernel.cuh"
#include "attention/flashinfer/decode_loader.cuh"
#include "attention/flashinfer/kernels.cuh"

namespace detinfer::flashinfer {

template <>
void launch_decode<256>(const DecodeArgs& args, cudaStream_t stream) {
  attention::launch_decode<DecodeLoader, 256>({args.rope.keys, args.rope.values}, args, stream);
}

}  // namespace detinfer::flashinfer
