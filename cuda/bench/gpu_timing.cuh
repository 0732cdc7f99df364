// What the benchmarks of CUDA kernels share: memory with a model's kind of numbers, and times of launches within a graph.
#pragma once

#include <cuda_runtime.h>

#include "bench/graph_timing.cuh"
#include "core/cuda_check.h"
#include "core/numerics.h"

namespace detinfer {

/// Normal values of deviation `scale`: on zeros the card runs faster than on a model's data.
void fill_normal(bf16* values, size_t count, uint64_t seed, float scale = 1.0f);

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

/// Seconds of one launch, from replays of a graph of `launches`; launch(i, stream) makes the i-th.
template <class Launch>
Times time_graph(int launches, int replays, const Launch& launch) {
  TimedGraph graph(launches, Overlap::kDependentLaunch, launch);
  replay_in_turn({&graph}, replays);
  return graph.times();
}

}  // namespace detinfer
