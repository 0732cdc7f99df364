#include "attention/decode/kernel.cuh"
#include "attention/fa3/decode_loader.cuh"

namespace detinfer::fa3 {

void launch_decode(const PoolMaps& maps, const DecodeArgs& args, cudaStream_t stream) {
  if (args.head_dim == 128) {
    attention::launch_decode<DecodeLoader, 128>(maps, args, stream);
  } else {
    attention::launch_decode<DecodeLoader, 64>(maps, args, stream);
  }
}

}  // namespace detinfer::fa3
