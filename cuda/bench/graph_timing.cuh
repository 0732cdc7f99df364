// Times of launches on a GPU: replays of a CUDA graph, with and without the overlap of dependent launches.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <vector>

#include "core/cuda_check.h"

namespace detinfer {

/// How the launches of a graph follow each other: each may start while the one before it ends, or each waits for it.
enum class Overlap { kDependentLaunch, kNone };

/// Turns programmatic dependencies into full ones.
inline void make_dependencies_full(cudaGraph_t graph) {
  size_t count = 0;
  CUDA_CHECK(cudaGraphGetEdges(graph, nullptr, nullptr, nullptr, &count));
  if (count == 0) return;
  std::vector<cudaGraphNode_t> from(count), to(count);
  std::vector<cudaGraphEdgeData> kinds(count);
  CUDA_CHECK(cudaGraphGetEdges(graph, from.data(), to.data(), kinds.data(), &count));
  CUDA_CHECK(cudaGraphRemoveDependencies(graph, from.data(), to.data(), kinds.data(), count));
  CUDA_CHECK(cudaGraphAddDependencies(graph, from.data(), to.data(), nullptr, count));
}

/// Median seconds of one launch, from replays of a graph of `launches`; launch(i, stream) makes the i-th.
template <class Launch>
double seconds_per_launch(int launches, int replays, Overlap overlap, const Launch& launch) {
  cudaStream_t stream;
  cudaGraph_t graph;
  cudaGraphExec_t replay;
  cudaEvent_t start, end;
  CUDA_CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  CUDA_CHECK(cudaEventCreate(&start));
  CUDA_CHECK(cudaEventCreate(&end));
  CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  for (int i = 0; i < launches; ++i) launch(i, stream);
  CUDA_CHECK(cudaStreamEndCapture(stream, &graph));
  if (overlap == Overlap::kNone) make_dependencies_full(graph);
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
  CUDA_CHECK(cudaEventDestroy(start));
  CUDA_CHECK(cudaEventDestroy(end));
  CUDA_CHECK(cudaGraphExecDestroy(replay));
  CUDA_CHECK(cudaGraphDestroy(graph));
  CUDA_CHECK(cudaStreamDestroy(stream));
  std::nth_element(seconds.begin(), seconds.begin() + seconds.size() / 2, seconds.end());
  return seconds[seconds.size() / 2];
}

}  // namespace detinfer
