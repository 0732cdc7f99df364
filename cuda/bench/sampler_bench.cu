// The sampler: µs of a run within a graph, next to the time that reading its logits once takes.
#include "bench/sampler_bench.h"

#include <cstdio>
#include <vector>

#include "bench/gpu_timing.cuh"
#include "core/cuda_memory.cuh"
#include "kernels/sampler/sampler_cuda.h"

namespace detinfer {
namespace {

constexpr int kVocab = 151936;
/// Rows that together are larger than the second-level cache, which the runs take in turn.
constexpr int kPool = 512;
constexpr int kLaunches = 16;

/// Logits of a deviation like a model's.
__global__ void scale(const bf16* normal, float* logits, size_t count, float deviation) {
  const size_t step = size_t(gridDim.x) * blockDim.x;
  for (size_t i = blockIdx.x * size_t(blockDim.x) + threadIdx.x; i < count; i += step) {
    // Of the lower bits no more than one float in 2^16 is repeated.
    logits[i] = to_float(normal[i]) * deviation * (1.0f + float(i % 65521) * 1e-7f);
  }
}

struct Case {
  const char* name;
  SampleArgs args;
  bool sampled_logprob = false;
  int top = 0;
};

std::vector<Case> cases() {
  Case greedy{"greedy"}, plain{"plain draw"}, filtered{"top_k 50, top_p 0.95"};
  Case nucleus{"top_p 0.95"}, warm{"T 0.7, top_p 0.8"};
  Case top{"logprob + top 20"}, all{"T 0.7, top_k 50, top_p 0.95, logprob + top 20"};
  greedy.args.greedy = true;
  filtered.args.top_k = 50;
  filtered.args.top_p = nucleus.args.top_p = 0.95;
  warm.args.temperature = 0.7f;
  warm.args.top_p = 0.8;
  top.args.greedy = true;
  top.sampled_logprob = true;
  top.top = 20;
  all.args = filtered.args;
  all.args.temperature = 0.7f;
  all.sampled_logprob = true;
  all.top = 20;
  return {greedy, plain, filtered, nucleus, warm, top, all};
}

void bench_case(const Case& c, int rows, const float* logits, int32_t* drawn, double bandwidth) {
  CudaSampler sampler(kVocab, rows);
  std::vector<SampleArgs> args(rows, c.args);
  std::vector<RowRequest> requests(rows);
  std::vector<float> top_logprobs(size_t(rows) * c.top);
  std::vector<int32_t> top_ids(size_t(rows) * c.top);
  for (int i = 0; i < rows; ++i) {
    args[i].key = {uint32_t(i * 977), 5, uint32_t(i)};
    requests[i].sample = &args[i];
    requests[i].drawn_index = i;
    requests[i].logprob_temperature = args[i].greedy ? 1.0f : args[i].temperature;
    requests[i].sampled_logprob = c.sampled_logprob;
    requests[i].top = c.top;
    requests[i].top_logprobs = top_logprobs.data() + size_t(i) * c.top;
    requests[i].top_ids = top_ids.data() + size_t(i) * c.top;
  }
  const int call = sampler.send(requests.data(), rows, nullptr);
  CUDA_CHECK(cudaDeviceSynchronize());
  const Times t = time_graph(kLaunches, 15, [&](int i, cudaStream_t stream) {
    sampler.run(logits + size_t(i) * rows % kPool * kVocab, rows, drawn, stream);
  });
  CUDA_CHECK(cudaDeviceSynchronize());
  sampler.deliver(call, requests.data(), rows);
  const double floor = double(rows) * kVocab * sizeof(float) / bandwidth;
  std::printf("%-48s %5d %9.2f %9.2f %9.2f %7.2f\n", c.name, rows, t.median * 1e6, t.least * 1e6, floor * 1e6,
              t.median / floor);
}

}  // namespace

void bench_sampler_cuda(double bandwidth) {
  const size_t count = size_t(kPool) * kVocab;
  const CudaArray<float> logits(CudaMemory::kDevice, int64_t(count));
  const CudaArray<int32_t> drawn(CudaMemory::kDevice, kPool);
  for (float deviation : {2.4f, 6.0f}) {
    {
      const Values normal(count, 21);
      scale<<<1024, 256>>>(normal.data(), logits.data(), count, deviation);
      CUDA_CHECK(cudaDeviceSynchronize());
    }
    std::printf("\nsampler, vocabulary of %d, logits of deviation %.1f\n", kVocab, deviation);
    std::printf("%-48s %5s %9s %9s %9s %7s\n", "", "rows", "us", "(least)", "floor", "ratio");
    for (const Case& c : cases()) {
      for (int rows : {1, 16, 64, 256}) bench_case(c, rows, logits.data(), drawn.data(), bandwidth);
    }
  }
}

}  // namespace detinfer
