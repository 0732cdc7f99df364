// detinfer_cuda_bench: what the CUDA kernels reach, on the first GPU.
#include <cstdio>
#include <exception>

#include "bench/attention_bench.h"
#include "core/cuda_check.h"

int main() {
  try {
    cudaDeviceProp properties;
    CUDA_CHECK(cudaGetDeviceProperties(&properties, 0));
    std::printf("%s, %d multiprocessors\n", properties.name, properties.multiProcessorCount);
    detinfer::bench_attention_cuda();
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "detinfer_cuda_bench: %s\n", error.what());
    return 2;
  }
}
