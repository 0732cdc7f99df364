// The launcher of the flashinfer kernel, between its files.
#pragma once

#include <cuda_runtime.h>

#include "attention/flashinfer/work.cuh"

namespace detinfer::flashinfer {

/// The number of blocks depends on the device alone, so that the launch can stand in a graph.
/// @tparam D columns in shared memory: 64, 128 or 256, at least head_dim
template <int D>
void launch_step(const FlashinferArgs& args, cudaStream_t stream);

}  // namespace detinfer::flashinfer
