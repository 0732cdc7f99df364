// What the benchmarks of CUDA kernels share: memory with a model's kind of numbers, times of launches within a graph, and
// the bandwidth that this device reaches.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <vector>

#include "core/cuda_check.h"
#include "core/numerics.h"

namespace detinfer {

/// Normal values: on zeros the card runs faster than on a model's data.
void fill_normal(bf16* values, size_t count, uint64_t seed);

/// Bytes per second of a plain loop over 4 GiB.
double read_bandwidth();

/// An array of the device of normal values.
class Values {
 public:
  Values(size_t count, uint64_t seed) : count_(count) {
    CUDA_CHECK(cudaMalloc(&data_, count * sizeof(bf16)));
    fill_normal(data_, count, seed);
  }
  ~Values() { cudaFree(data_); }
  Values(const Values&) = delete;
  Values& operator=(const Values&) = delete;
  bf16* data() const { return data_; }
  size_t count() const { return count_; }

 private:
  bf16* data_ = nullptr;
  size_t count_;
};

struct Times {
  double median, least, most;
};

/// Seconds of one launch, from replays of a graph of `launches`; launch(i, stream) makes the i-th.
template <class Launch>
Times time_graph(int launches, int replays, const Launch& launch) {
  cudaStream_t stream;
  cudaGraph_t graph;
  cudaGraphExec_t replay;
  cudaEvent_t start, end;
  CUDA_CHECK(cudaStreamCreate(&stream));
  CUDA_CHECK(cudaEventCreate(&start));
  CUDA_CHECK(cudaEventCreate(&end));
  CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  for (int i = 0; i < launches; ++i) launch(i, stream);
  CUDA_CHECK(cudaStreamEndCapture(stream, &graph));
  CUDA_CHECK(cudaGraphInstantiate(&replay, graph, 0));
  std::vector<double> seconds;
  for (int r = -2; r < replays; ++r) {
    CUDA_CHECK(cudaEventRecord(start, stream));
    CUDA_CHECK(cudaGraphLaunch(replay, stream));
    CUDA_CHECK(cudaEventRecord(end, stream));
    CUDA_CHECK(cudaEventSynchronize(end));
    float ms;
    CUDA_CHECK(cudaEventElapsedTime(&ms, start, end));
    if (r >= 0) seconds.push_back(ms * 1e-3 / launches);
  }
  std::sort(seconds.begin(), seconds.end());
  CUDA_CHECK(cudaEventDestroy(start));
  CUDA_CHECK(cudaEventDestroy(end));
  CUDA_CHECK(cudaGraphExecDestroy(replay));
  CUDA_CHECK(cudaGraphDestroy(graph));
  CUDA_CHECK(cudaStreamDestroy(stream));
  return {seconds[seconds.size() / 2], seconds.front(), seconds.back()};
}

}  // namespace detinfer
