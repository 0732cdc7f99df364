// What the operations of a GPU need of a stream: a stream that frees itself, staging memory for small uploads, recorded
// graphs.
#pragma once

#include <cstring>
#include <functional>
#include <map>

#include "core/cuda_memory.cuh"
#include "core/upload.cuh"

namespace detinfer {

class CudaStream {
 public:
  CudaStream() { CUDA_CHECK(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking)); }
  ~CudaStream() { cudaStreamDestroy(stream_); }
  CudaStream(const CudaStream&) = delete;
  CudaStream& operator=(const CudaStream&) = delete;
  cudaStream_t get() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

/// Pinned memory that holds what is being uploaded, in two halves: one is filled again only when the device has passed the
/// mark that closed it.
class UploadStaging {
 public:
  explicit UploadStaging(size_t half_bytes)
      : half_bytes_(half_bytes), memory_(CudaMemory::kPinned, int64_t(2 * half_bytes)) {}

  /// Copies from host memory, which may be changed afterwards.
  void upload(void* to, const void* from, size_t bytes, cudaStream_t stream) {
    const size_t padded = (bytes + 15) / 16 * 16;
    if (used_ == 0) passed_[turn_].wait();
    if (used_ + padded > half_bytes_) {
      // Not from staging: the copy is over when this returns.
      CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream));
      CUDA_CHECK(cudaStreamSynchronize(stream));
      return;
    }
    char* const staged = memory_.data() + turn_ * half_bytes_ + used_;
    used_ += padded;
    std::memcpy(staged, from, bytes);
    upload_async(to, staged, bytes, stream);
  }

  /// Closes the half in use. @return the number of the mark
  int64_t mark(cudaStream_t stream) {
    passed_[turn_].record(stream);
    turn_ ^= 1;
    used_ = 0;
    return marks_++;
  }

  /// Waits until the device has passed a mark. One that is not among the last two may wait for a later one.
  void wait(int64_t mark) const { passed_[mark % 2].wait(); }

 private:
  size_t half_bytes_;
  CudaArray<char> memory_;
  CudaEvent passed_[2];
  int turn_ = 0;
  size_t used_ = 0;
  int64_t marks_ = 0;
};

/// CUDA graphs by key.
class CudaGraphs {
 public:
  CudaGraphs() = default;
  ~CudaGraphs() {
    for (const auto& [key, graph] : graphs_) cudaGraphExecDestroy(graph);
  }
  CudaGraphs(const CudaGraphs&) = delete;
  CudaGraphs& operator=(const CudaGraphs&) = delete;

  /// Replays the graph of a key; the first time, records the work that `body` puts into the stream.
  void run(int key, const std::function<void()>& body, cudaStream_t stream) {
    auto found = graphs_.find(key);
    if (found == graphs_.end()) found = graphs_.emplace(key, record(body, stream)).first;
    CUDA_CHECK(cudaGraphLaunch(found->second, stream));
  }

 private:
  static cudaGraphExec_t record(const std::function<void()>& body, cudaStream_t stream) {
    cudaGraph_t graph = nullptr;
    CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    try {
      body();
    } catch (...) {
      cudaStreamEndCapture(stream, &graph);
      if (graph) cudaGraphDestroy(graph);
      throw;
    }
    CUDA_CHECK(cudaStreamEndCapture(stream, &graph));
    cudaGraphExec_t instance = nullptr;
    const cudaError_t status = cudaGraphInstantiate(&instance, graph, 0);
    cudaGraphDestroy(graph);
    CUDA_CHECK(status);
    return instance;
  }

  std::map<int, cudaGraphExec_t> graphs_;
};

}  // namespace detinfer
