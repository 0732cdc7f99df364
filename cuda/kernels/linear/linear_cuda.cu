#include "kernels/linear/linear_cuda.h"

#include <utility>

#include "core/cuda_check.h"
#include "core/tensor_map.cuh"
#include "kernels/linear/linear_launch.cuh"
#include "kernels/linear/run_linear.h"
#include "kernels/mlp/swiglu.h"

namespace detinfer {
namespace {

using Launcher = void (*)(const CUtensorMap&, const CUtensorMap&, const linear::Arguments&, cudaStream_t);

template <int... kIndices>
Launcher launcher(int tile, std::integer_sequence<int, kIndices...>) {
  static constexpr Launcher kLaunchers[] = {linear::launch_tile<kIndices>...};
  return kLaunchers[tile];
}

/// About what L2 keeps while weights stream through it. A smaller y stays there for its reader and until it is
/// overwritten; a larger one is written to memory anyway, which costs less the sooner it is.
constexpr size_t kKeptBytes = size_t(32) << 20;

void run(const bf16* x, int rows, const DeviceMatrix& w, const bf16* bias, void* y, LinearOutput output,
         cudaStream_t stream, int held = 0) {
  if (rows == 0) return;
  run_linear(choose_linear_schedule(rows, w.n, w.k, output, multiprocessors() - held), x, rows, w, bias, y, output,
             stream);
}

}  // namespace

int multiprocessors() {
  static const int count = [] {
    int device, value;
    CUDA_CHECK(cudaGetDevice(&device));
    CUDA_CHECK(cudaDeviceGetAttribute(&value, cudaDevAttrMultiProcessorCount, device));
    return value;
  }();
  return count;
}

void run_linear(const LinearSchedule& schedule, const bf16* x, int rows, const DeviceMatrix& w, const bf16* bias,
                void* y, LinearOutput output, cudaStream_t stream) {
  const LinearTile& tile = schedule.shape();
  const CUtensorMap x_map = tensor_map_2d(x, w.k, rows, w.k, 64, schedule.x_rows / tile.cluster_outputs);
  const CUtensorMap w_map = tensor_map_2d(w.data, w.k, w.n, w.k, 64, tile.outputs / tile.cluster_tokens);
  const bool streams = output == LinearOutput::kF32 && size_t(rows) * w.n * sizeof(float) > kKeptBytes;
  const linear::Arguments arguments{{y, bias, rows, w.n, output, streams}, schedule};
  launcher(schedule.tile, std::make_integer_sequence<int, kLinearTileCount>())(x_map, w_map, arguments, stream);
}

void linear_cuda(const bf16* x, int rows, const DeviceMatrix& w, const bf16* bias, bf16* y, cudaStream_t stream,
                 int held) {
  run(x, rows, w, bias, y, LinearOutput::kBf16, stream, held);
}

void linear_cuda(const bf16* x, int rows, const DeviceMatrix& w, const bf16* bias, float* y, cudaStream_t stream) {
  run(x, rows, w, bias, y, LinearOutput::kF32, stream);
}

void linear_swiglu_cuda(const bf16* x, int rows, const DeviceMatrix& w, bf16* y, cudaStream_t stream) {
  if (w.n % (2 * kSwigluGroup) != 0) {
    throw Error(ErrorCode::kUnsupported, "gates and ups are multiples of 8, not " + std::to_string(w.n / 2));
  }
  run(x, rows, w, nullptr, y, LinearOutput::kSwiglu, stream);
}

}  // namespace detinfer
