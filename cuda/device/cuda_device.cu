#include "device/cuda_device.cuh"

#include <algorithm>

#include "core/cuda_memory.cuh"
#include "device/cuda_ops.h"

namespace detinfer {
namespace {

/// Hopper: the kernels use wgmma and TMA, and other generations have other bits.
constexpr int kComputeCapability = 9;

struct Gpu {
  /// Among all GPUs of the machine.
  int index;
  cudaDeviceProp properties;
};

std::vector<Gpu> usable_gpus() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status == cudaErrorNoDevice) return {};
  if (status != cudaSuccess) {
    throw Error(ErrorCode::kUnsupported, std::string("CUDA does not start: ") + cudaGetErrorString(status));
  }
  std::vector<Gpu> gpus;
  for (int i = 0; i < count; ++i) {
    Gpu gpu{i, {}};
    CUDA_CHECK(cudaGetDeviceProperties(&gpu.properties, i));
    if (gpu.properties.major == kComputeCapability && gpu.properties.minor == 0) gpus.push_back(gpu);
  }
  return gpus;
}

__global__ void sum_kernel(const uint4* data, int64_t count, uint32_t* out) {
  uint32_t sum = 0;
  const int64_t stride = int64_t(gridDim.x) * blockDim.x;
#pragma unroll 8
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += stride) {
    const uint4 v = data[i];
    sum += v.x + v.y + v.z + v.w;
  }
  if (sum == 0x12345678u) *out = sum;  // keeps the loads
}

/// Milliseconds of what `body` puts into the default stream.
template <class Body>
float milliseconds_of(const Body& body) {
  cudaEvent_t begin = nullptr, end = nullptr;
  CUDA_CHECK(cudaEventCreate(&begin));
  CUDA_CHECK(cudaEventCreate(&end));
  CUDA_CHECK(cudaEventRecord(begin));
  body();
  CUDA_CHECK(cudaGetLastError());
  CUDA_CHECK(cudaEventRecord(end));
  CUDA_CHECK(cudaEventSynchronize(end));
  float milliseconds = 0.0f;
  CUDA_CHECK(cudaEventElapsedTime(&milliseconds, begin, end));
  CUDA_CHECK(cudaEventDestroy(begin));
  CUDA_CHECK(cudaEventDestroy(end));
  return milliseconds;
}

}  // namespace

std::vector<std::string> cuda_device_names() {
  std::vector<std::string> names;
  for (const Gpu& gpu : usable_gpus()) names.push_back(gpu.properties.name);
  return names;
}

cudaDeviceProp select_cuda_device(int index) {
  const std::vector<Gpu> gpus = usable_gpus();
  if (index < 0 || index >= int(gpus.size())) {
    throw Error(ErrorCode::kUnsupported, "there is no Hopper GPU " + std::to_string(index) + ": this machine has " +
                                             std::to_string(gpus.size()) + "; use --device cpu");
  }
  CUDA_CHECK(cudaSetDevice(gpus[index].index));
  return gpus[index].properties;
}

double cuda_read_bandwidth(int device) {
  constexpr int64_t kBytes = int64_t(2) << 30;
  constexpr int kRounds = 10;
  const cudaDeviceProp properties = select_cuda_device(device);
  const CudaArray<uint4> data(CudaMemory::kDevice, kBytes / 16);
  const CudaArray<uint32_t> out(CudaMemory::kDevice, 1);
  CUDA_CHECK(cudaMemset(data.data(), 1, kBytes));
  float best = 1e30f;
  for (int i = 0; i < kRounds; ++i) {
    best = std::min(best, milliseconds_of([&] {
                      sum_kernel<<<properties.multiProcessorCount * 8, 256>>>(data.data(), kBytes / 16, out.data());
                    }));
  }
  return double(kBytes) / (best * 1e-3);
}

}  // namespace detinfer
