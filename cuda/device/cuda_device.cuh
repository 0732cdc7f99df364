// The choice of a GPU.
#pragma once

#include <cuda_runtime.h>

namespace detinfer {

/// Makes a GPU the current one. @param index among those that can run the kernels @throws Error kUnsupported
cudaDeviceProp select_cuda_device(int index);

}  // namespace detinfer
