#include "bench/cublas.h"

#include <dlfcn.h>
#include <glob.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "core/cuda_check.h"

namespace detinfer {
namespace {

constexpr size_t kWorkspaceBytes = size_t(32) << 20;

std::vector<std::string> candidates() {
  std::vector<std::string> result;
  if (const char* path = std::getenv("CUBLAS")) result.push_back(path);
  result.insert(result.end(), {"libcublas.so.13", "libcublas.so.12"});
  for (const char* pattern : {"/usr/local/cuda*/lib64/libcublas.so.1?",
                              "/opt/*/.venv/lib/python3*/site-packages/nvidia/*/lib/libcublas.so.1?",
                              "/usr/local/lib/python3*/*-packages/nvidia/*/lib/libcublas.so.1?",
                              "/usr/lib/python3*/*-packages/nvidia/*/lib/libcublas.so.1?"}) {
    glob_t found;
    if (glob(pattern, 0, nullptr, &found) == 0) {
      for (size_t i = 0; i < found.gl_pathc; ++i) result.push_back(found.gl_pathv[i]);
    }
    globfree(&found);
  }
  return result;
}

void check(int status, const char* call) {
  if (status != 0) throw Error(ErrorCode::kEngineFailed, std::string(call) + " failed with " + std::to_string(status));
}

}  // namespace

Cublas::Cublas() {
  void* library = nullptr;
  for (const std::string& path : candidates()) {
    // Its sibling libcublasLt is found only if it is loaded already, where neither is in the loader's path.
    const size_t name = path.rfind("libcublas.so");
    if (name != std::string::npos) {
      dlopen((path.substr(0, name) + "libcublasLt.so" + path.substr(name + 12)).c_str(), RTLD_NOW);
    }
    library = dlopen(path.c_str(), RTLD_NOW);
    if (library != nullptr) break;
  }
  if (library == nullptr) return;
  check(reinterpret_cast<int (*)(void**)>(dlsym(library, "cublasCreate_v2"))(&handle_), "cublasCreate");
  // A workspace of its own, so that launches can be captured.
  void* workspace;
  CUDA_CHECK(cudaMalloc(&workspace, kWorkspaceBytes));
  set_stream_ = dlsym(library, "cublasSetStream_v2");
  gemm_ = dlsym(library, "cublasGemmEx");
  set_workspace_ = dlsym(library, "cublasSetWorkspace_v2");
  workspace_ = workspace;
}

void Cublas::multiply(const bf16* x, int rows, const bf16* w, int n, int k, void* y, bool f32,
                      cudaStream_t stream) const {
  // Values of cublasOperation_t, cudaDataType, cublasComputeType_t and cublasGemmAlgo_t.
  constexpr int kTransposed = 1, kAsIs = 0, kBf16 = 14, kF32 = 0, kComputeF32 = 68, kDefaultAlgorithm = -1;
  using Gemm = int (*)(void*, int, int, int, int, int, const void*, const void*, int, int, const void*, int, int,
                       const void*, void*, int, int, int, int);
  const float one = 1, zero = 0;
  check(reinterpret_cast<int (*)(void*, cudaStream_t)>(set_stream_)(handle_, stream), "cublasSetStream");
  check(reinterpret_cast<int (*)(void*, void*, size_t)>(set_workspace_)(handle_, workspace_, kWorkspaceBytes),
        "cublasSetWorkspace");
  check(reinterpret_cast<Gemm>(gemm_)(handle_, kTransposed, kAsIs, n, rows, k, &one, w, kBf16, k, x, kBf16, k, &zero, y,
                                      f32 ? kF32 : kBf16, n, kComputeF32, kDefaultAlgorithm),
        "cublasGemmEx");
}

}  // namespace detinfer
