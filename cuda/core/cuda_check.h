// Errors of the CUDA runtime as errors of the engine. For .cu files, where nvcc has included the runtime's header.
#pragma once

#include <string>

#include "core/error.h"

namespace detinfer {

/// @throws Error kOutOfMemory or kEngineFailed naming the call, unless it succeeded
inline void check_cuda(cudaError_t status, const char* call) {
  if (status == cudaSuccess) return;
  const ErrorCode code = status == cudaErrorMemoryAllocation ? ErrorCode::kOutOfMemory : ErrorCode::kEngineFailed;
  throw Error(code, std::string("CUDA: ") + cudaGetErrorString(status) + " in " + call);
}

}  // namespace detinfer

#define CUDA_CHECK(call) ::detinfer::check_cuda((call), #call)
