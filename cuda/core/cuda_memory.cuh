// Memory and events of CUDA that free themselves.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "core/cuda_check.h"

namespace detinfer {

/// Memory of the device, or pinned memory of the host.
enum class CudaMemory { kDevice, kPinned };

/// An array that is not initialised.
template <class T>
class CudaArray {
 public:
  CudaArray(CudaMemory kind, int64_t count) : kind_(kind) {
    const size_t bytes = size_t(count) * sizeof(T);
    if (kind == CudaMemory::kDevice) {
      CUDA_CHECK(cudaMalloc(&data_, bytes));
    } else {
      CUDA_CHECK(cudaMallocHost(&data_, bytes));
    }
  }
  ~CudaArray() {
    if (kind_ == CudaMemory::kDevice) {
      cudaFree(data_);
    } else {
      cudaFreeHost(data_);
    }
  }
  CudaArray(const CudaArray&) = delete;
  CudaArray& operator=(const CudaArray&) = delete;
  T* data() const { return data_; }

 private:
  CudaMemory kind_;
  T* data_ = nullptr;
};

/// Marks a point in a stream that the host can wait for.
class CudaEvent {
 public:
  CudaEvent() { CUDA_CHECK(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming)); }
  ~CudaEvent() { cudaEventDestroy(event_); }
  CudaEvent(const CudaEvent&) = delete;
  CudaEvent& operator=(const CudaEvent&) = delete;

  void record(cudaStream_t stream) { CUDA_CHECK(cudaEventRecord(event_, stream)); }
  /// Returns at once if the event was never recorded.
  void wait() const { CUDA_CHECK(cudaEventSynchronize(event_)); }

 private:
  cudaEvent_t event_ = nullptr;
};

}  // namespace detinfer
