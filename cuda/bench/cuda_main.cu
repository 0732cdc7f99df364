// detinfer_cuda_bench [decode|linear|moe|ops|prefill|sampler …]: what the CUDA kernels reach, on the first GPU; all of them
// if none is named. detinfer_cuda_bench linear-schedules ROWS,…: the fastest schedules of linear for these numbers of rows;
// moe-schedules ROWS,…: the schedules of a layer of experts.
#include <algorithm>
#include <cstdio>
#include <exception>
#include <functional>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include "bench/attention_bench.h"
#include "bench/linear_bench.h"
#include "bench/moe_bench.h"
#include "bench/ops_bench.h"
#include "bench/sampler_bench.h"
#include "core/cuda_check.h"
#include "device/cuda_ops.h"

int main(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  try {
    cudaDeviceProp properties;
    CUDA_CHECK(cudaGetDeviceProperties(&properties, 0));
    std::printf("%s, %d multiprocessors\n", properties.name, properties.multiProcessorCount);
    const double bandwidth = detinfer::cuda_read_bandwidth(0);
    std::printf("reading memory: %.2f TB/s\n", bandwidth * 1e-12);
    const std::map<std::string, std::function<void()>> benches = {
        {"decode", [] { detinfer::bench_decode_cuda(); }},
        {"linear", [=] { detinfer::bench_linear_cuda(bandwidth); }},
        {"moe", [=] { detinfer::bench_moe_cuda(bandwidth); }},
        {"ops", [=] { detinfer::bench_ops_cuda(bandwidth); }},
        {"prefill", [] { detinfer::bench_prefill_cuda(); }},
        {"sampler", [=] { detinfer::bench_sampler_cuda(bandwidth); }},
    };
    if (argc == 3 && std::string(argv[1]) == "linear-schedules") {
      detinfer::bench_linear_schedules(argv[2]);
      return 0;
    }
    if (argc == 3 && std::string(argv[1]) == "moe-schedules") {
      detinfer::bench_moe_schedules(argv[2]);
      return 0;
    }
    const std::vector<std::string> named(argv + 1, argv + argc);
    for (const std::string& name : named) {
      if (benches.count(name) == 0) throw std::runtime_error("there is no benchmark '" + name + "'");
    }
    for (const auto& [name, bench] : benches) {
      if (named.empty() || std::find(named.begin(), named.end(), name) != named.end()) bench();
    }
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "detinfer_cuda_bench: %s\n", error.what());
    return 2;
  }
}
