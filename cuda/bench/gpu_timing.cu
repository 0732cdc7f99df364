#include "bench/gpu_timing.cuh"

namespace detinfer {
namespace {

__device__ uint32_t mix(uint64_t x) {
  x ^= x >> 33;
  x *= 0xff51afd7ed558ccdull;
  x ^= x >> 33;
  x *= 0xc4ceb9fe1a85ec53ull;
  return uint32_t(x ^ (x >> 33));
}

__global__ void fill(bf16* values, size_t count, uint64_t seed) {
  const size_t step = size_t(gridDim.x) * blockDim.x;
  for (size_t i = blockIdx.x * size_t(blockDim.x) + threadIdx.x; i < count; i += step) {
    const uint64_t at = (i + (seed << 40)) * 2;
    const float u = (float(mix(at)) + 0.5f) * 2.3283064e-10f, v = float(mix(at + 1)) * 2.3283064e-10f;
    values[i] = to_bf16(sqrtf(-2.0f * logf(u)) * cosf(6.2831853f * v));
  }
}

__global__ void read_all(const uint4* data, size_t count, uint32_t* sink) {
  uint32_t sum = 0;
  const size_t step = size_t(gridDim.x) * blockDim.x;
#pragma unroll 8
  for (size_t i = blockIdx.x * size_t(blockDim.x) + threadIdx.x; i < count; i += step) {
    const uint4 v = __ldcs(data + i);
    sum += v.x ^ v.y ^ v.z ^ v.w;
  }
  if (sum == 0x12345678u) *sink = sum;
}

}  // namespace

void fill_normal(bf16* values, size_t count, uint64_t seed) {
  fill<<<1024, 256>>>(values, count, seed);
  CUDA_CHECK(cudaGetLastError());
  CUDA_CHECK(cudaDeviceSynchronize());
}

double read_bandwidth() {
  const Values data(size_t(2) << 30, 5);
  uint32_t* sink;
  CUDA_CHECK(cudaMalloc(&sink, 4));
  const Times t = time_graph(4, 5, [&](int, cudaStream_t stream) {
    read_all<<<2048, 512, 0, stream>>>(reinterpret_cast<const uint4*>(data.data()), data.count() / 8, sink);
  });
  CUDA_CHECK(cudaFree(sink));
  return double(data.count()) * 2 / t.median;
}

}  // namespace detinfer
