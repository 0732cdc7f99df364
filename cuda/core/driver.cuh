// Functions of the CUDA driver, found at run time, so that nothing links against the driver's library.
#pragma once

#include <cuda.h>
#include <cuda_runtime.h>

#include <string>

#include "core/cuda_check.h"

namespace detinfer {

/// @tparam Function decltype(&cuName) @param name of a function that drivers have from 12.0 on
/// @throws Error kEngineFailed if the driver is older
template <class Function>
Function driver_function(const char* name) {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult result;
  CUDA_CHECK(cudaGetDriverEntryPointByVersion(name, &function, 12000, cudaEnableDefault, &result));
  if (result != cudaDriverEntryPointSuccess) {
    throw Error(ErrorCode::kEngineFailed,
                std::string("the CUDA driver has no ") + name + "; update it to 12.0 or later");
  }
  return reinterpret_cast<Function>(function);
}

/// @throws Error kEngineFailed naming the call, unless it succeeded
inline void check_driver(CUresult result, const char* call) {
  if (result == CUDA_SUCCESS) return;
  throw Error(ErrorCode::kEngineFailed, std::string("CUDA: ") + call + " failed with " + std::to_string(int(result)));
}

}  // namespace detinfer
