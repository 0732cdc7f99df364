// The compiled kernels as they stand in the program. scripts/embed-triton.mjs writes their definitions at build time,
// from kernels/manifest.json and the cubins beside it.
#pragma once

#include <cstddef>

namespace detinfer::triton {

struct CompiledKernel {
  const char* name;
  /// Of the function within the cubin.
  const char* function;
  const unsigned char* cubin;
  /// Types of its arguments: p a pointer, i an int32, l an int64, f a float, m a CUtensorMap. The last two are Triton's
  /// scratch memories, which these kernels do not use.
  const char* arguments;
  int warps;
  int shared_bytes;
};

extern const CompiledKernel kCompiledKernels[];
extern const size_t kCompiledKernelCount;

}  // namespace detinfer::triton
