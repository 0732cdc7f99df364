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

/// Seconds of one launch.
struct Times {
  double median, least, most;
};

/// A graph of launches whose replays are timed. Replays of what is to be compared should alternate, as the clocks of the
/// device change with its load.
class TimedGraph {
 public:
  /// launch(i, stream) makes the i-th of `launches`.
  template <class Launch>
  TimedGraph(int launches, Overlap overlap, const Launch& launch) : launches_(launches) {
    CUDA_CHECK(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    CUDA_CHECK(cudaEventCreate(&start_));
    CUDA_CHECK(cudaEventCreate(&end_));
    cudaGraph_t graph;
    CUDA_CHECK(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeGlobal));
    for (int i = 0; i < launches; ++i) launch(i, stream_);
    CUDA_CHECK(cudaStreamEndCapture(stream_, &graph));
    if (overlap == Overlap::kNone) make_dependencies_full(graph);
    CUDA_CHECK(cudaGraphInstantiate(&replay_, graph, 0));
    CUDA_CHECK(cudaGraphDestroy(graph));
  }
  ~TimedGraph() {
    cudaGraphExecDestroy(replay_);
    cudaEventDestroy(start_);
    cudaEventDestroy(end_);
    cudaStreamDestroy(stream_);
  }
  TimedGraph(const TimedGraph&) = delete;
  TimedGraph& operator=(const TimedGraph&) = delete;

  void replay() {
    CUDA_CHECK(cudaEventRecord(start_, stream_));
    CUDA_CHECK(cudaGraphLaunch(replay_, stream_));
    CUDA_CHECK(cudaEventRecord(end_, stream_));
    CUDA_CHECK(cudaEventSynchronize(end_));
    float ms;
    CUDA_CHECK(cudaEventElapsedTime(&ms, start_, end_));
    seconds_.push_back(ms * 1e-3 / launches_);
  }
  /// Over the replays so far.
  Times times() const {
    std::vector<double> sorted = seconds_;
    std::sort(sorted.begin(), sorted.end());
    return {sorted[sorted.size() / 2], sorted.front(), sorted.back()};
  }
  double seconds() const { return times().median; }
  /// Forgets replays, such as the first, which warms up.
  void clear() { seconds_.clear(); }

 private:
  int launches_;
  cudaStream_t stream_;
  cudaEvent_t start_, end_;
  cudaGraphExec_t replay_;
  std::vector<double> seconds_;
};

/// Replays the graphs in turn, `rounds` times after one that warms up.
inline void replay_in_turn(const std::vector<TimedGraph*>& graphs, int rounds) {
  for (int round = -1; round < rounds; ++round) {
    for (TimedGraph* graph : graphs) {
      graph->replay();
      if (round < 0) graph->clear();
    }
  }
}

}  // namespace detinfer
