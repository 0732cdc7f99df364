// The operations on a Hopper GPU.
#pragma once

#include <string>

#include "kernels/ops.h"

namespace detinfer {

struct CudaOptions {
  /// Index of the GPU in cuda_device_names().
  int device = 0;
  std::string attention_backend = "fa3";
  /// Largest pass of decodes that is recorded as a CUDA graph; 0: none.
  int graph_max_batch = 256;
};

/// Names of the GPUs that can run the kernels. @throws Error kUnsupported when the driver does not start
std::vector<std::string> cuda_device_names();

/// @throws Error kUnsupported
std::unique_ptr<Ops> make_cuda_ops(const CudaOptions& options);

/// Bytes per second at which a GPU reads its memory: a plain sum, the best of several rounds.
/// @throws Error kUnsupported, kOutOfMemory
double cuda_read_bandwidth(int device);

}  // namespace detinfer
