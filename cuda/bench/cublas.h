// cuBLAS, found at run time, to compare with: no part of detinfer links it.
#pragma once

#include "core/numerics.h"

typedef struct CUstream_st* cudaStream_t;

namespace detinfer {

class Cublas {
 public:
  /// Looks in $CUBLAS (a file), in the loader's path and in the usual folders of CUDA and of Python's packages.
  Cublas();
  bool found() const { return handle_ != nullptr; }
  /// y [rows][n] = x [rows][k] · w [n][k]ᵀ, y bf16 or f32. @throws Error kEngineFailed
  void multiply(const bf16* x, int rows, const bf16* w, int n, int k, void* y, bool f32, cudaStream_t stream) const;

 private:
  void* handle_ = nullptr;
  void* workspace_ = nullptr;
  /// Functions of the library.
  void* set_stream_ = nullptr;
  void* set_workspace_ = nullptr;
  void* gemm_ = nullptr;
};

}  // namespace detinfer
