// detinfer_cuda_bench: what the CUDA kernels reach, on the first GPU.
//   attention | linear        one of them; all without a word
//   linear-schedules ROWS,…   the fastest schedules of linear for some numbers of rows
#include <cstdio>
#include <exception>
#include <string>

#include "bench/attention_bench.h"
#include "bench/linear_bench.h"
#include "core/cuda_check.h"

int main(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  try {
    cudaDeviceProp properties;
    CUDA_CHECK(cudaGetDeviceProperties(&properties, 0));
    std::printf("%s, %d multiprocessors\n", properties.name, properties.multiProcessorCount);
    const std::string what = argc > 1 ? argv[1] : "";
    if (what == "linear-schedules") detinfer::bench_linear_schedules(argc > 2 ? argv[2] : "");
    if (what.empty() || what == "attention") detinfer::bench_attention_cuda();
    if (what.empty() || what == "linear") detinfer::bench_linear_cuda();
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "detinfer_cuda_bench: %s\n", error.what());
    return 2;
  }
}
