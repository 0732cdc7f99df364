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

__global__ void fill(bf16* values, size_t count, uint64_t seed, float scale) {
  const size_t step = size_t(gridDim.x) * blockDim.x;
  for (size_t i = blockIdx.x * size_t(blockDim.x) + threadIdx.x; i < count; i += step) {
    const uint64_t at = (i + (seed << 40)) * 2;
    const float u = (float(mix(at)) + 0.5f) * 2.3283064e-10f, v = float(mix(at + 1)) * 2.3283064e-10f;
    values[i] = to_bf16(sqrtf(-2.0f * logf(u)) * cosf(6.2831853f * v) * scale);
  }
}

}  // namespace

void fill_normal(bf16* values, size_t count, uint64_t seed, float scale) {
  fill<<<1024, 256>>>(values, count, seed, scale);
  CUDA_CHECK(cudaGetLastError());
  CUDA_CHECK(cudaDeviceSynchronize());
}

}  // namespace detinfer
