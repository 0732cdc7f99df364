// linear on a GPU against the CPU, and on large shapes against a chain of mma.sync: every bit of every output, by every
// tile that a kernel is compiled for.
#include <algorithm>
#include <string>

#include "core/cuda_check.h"
#include "core/error.h"
#include "kernels/linear/linear.h"
#include "kernels/linear/linear_cuda.h"
#include "kernels/linear/run_linear.h"
#include "tests/cuda/device_buffer.h"
#include "tests/cuda/fill.cuh"
#include "tests/cuda/mma_chain.cuh"
#include "tests/cuda/pool.h"
#include "tests/cuda/swiglu_of_outputs.cuh"
#include "tests/native/check.h"
#include "tests/native/operands.h"

namespace detinfer::testing {
namespace {

/// Every tile for a problem, with the deepest pipeline and the shallowest, and with one cluster that walks all tiles.
template <class Body>
void for_each_schedule(int rows, int n, int k, const Body& body) {
  for (int tile = 0; tile < kLinearTileCount; ++tile) {
    LinearSchedule schedule = schedule_of_tile(tile, rows, n, k, multiprocessors());
    body(schedule);
    if (schedule.clusters > 1) {
      LinearSchedule alone = schedule;
      alone.clusters = 1;
      body(alone);
    }
    if (schedule.stages == 2) continue;
    schedule.stages = 2;
    body(schedule);
  }
}

std::string to_text(float x) {
  char text[40];
  snprintf(text, sizeof text, "%a (%08x)", x, float_bits(x));
  return text;
}
std::string to_text(bf16 x) { return to_text(to_float(x)); }

/// A problem on the device, with NaNs behind the rows of x.
struct Problem {
  int rows, n, k;
  std::vector<bf16> x_host, w_host, bias_host;
  DeviceBuffer<bf16> x, w, bias;

  static std::vector<bf16> with_nans(std::vector<bf16> values, size_t count) {
    values.resize(values.size() + count, bf16{0x7FC1});
    return values;
  }
  Problem(Operands kind, int rows, int n, int k, std::mt19937_64& random)
      : rows(rows),
        n(n),
        k(k),
        x_host(draw(kind, size_t(rows) * k, random)),
        w_host(draw(kind, size_t(n) * k, random)),
        bias_host(draw(Operands::kNormal, n, random)),
        x(with_nans(x_host, size_t(300) * k)),
        w(with_nans(w_host, size_t(300) * k)),
        bias(with_nans(bias_host, 300)) {}

  std::string text() const {
    return std::to_string(rows) + " rows, n " + std::to_string(n) + ", k " + std::to_string(k);
  }
  DeviceMatrix matrix() const { return {w.data(), n, k}; }

  /// Runs a schedule and checks every output, and that nothing behind them is written.
  template <class T>
  void check(const LinearSchedule& schedule, bool biased, const std::vector<T>& expected, LinearOutput output,
             const std::string& what) const {
    constexpr size_t kGuard = 4096;
    DeviceBuffer<T> y(expected.size() + kGuard);
    y.poison();
    run_linear(schedule, x.data(), rows, matrix(), biased ? bias.data() : nullptr, y.data(), output,
               nullptr);
    std::vector<T> actual = y.download();
    const std::vector<uint8_t> poison(kGuard * sizeof(T), 0xFF);
    const std::string name = what + ", " + text() + (biased ? ", bias" : "") + ", output " +
                             std::to_string(int(output)) + ", schedule " + schedule.text();
    CHECK_MESSAGE(memcmp(&actual[expected.size()], poison.data(), poison.size()) == 0, name << ": written past y");
    actual.resize(expected.size());
    for (size_t i = 0; i < expected.size(); ++i) {
      // The poison is a NaN of other bits than any result's.
      CHECK_MESSAGE(memcmp(&actual[i], poison.data(), sizeof(T)) != 0, name << ": element " << i << " is not written");
      CHECK_MESSAGE(same(actual[i], expected[i]), name << ": element " << i << ": " << to_text(actual[i]) << ", not "
                                                       << to_text(expected[i]));
    }
  }
};

std::vector<bf16> rounded(const std::vector<float>& values) {
  std::vector<bf16> result(values.size());
  for (size_t i = 0; i < values.size(); ++i) result[i] = to_bf16(values[i]);
  return result;
}

void every_tile_equals_cpu() {
  std::mt19937_64 random(11);
  for (Operands kind : kAllOperands) {
    for (int trial = 0; trial < 3; ++trial) {
      // Rows and outputs that end within a tile, outputs that are no multiple of 8, a k that ends within a step.
      const int k = 8 * int(1 + random() % 60);
      const int n = trial == 0 ? 16 * int(1 + random() % 30) : 1 + int(random() % 480);
      const int rows = trial == 2 ? 60 + int(random() % 230) : 1 + int(random() % 70);
      const Problem problem(kind, rows, n, k, random);
      const PackedMatrix packed = pack_matrix(pool(), problem.w_host.data(), n, k);
      for (const bool biased : {false, true}) {
        std::vector<float> expected(size_t(rows) * n);
        linear_cpu(pool(), problem.x_host.data(), rows, packed, biased ? problem.bias_host.data() : nullptr,
                   expected.data());
        const std::vector<bf16> expected_bf16 = rounded(expected);
        const std::string what = "operands " + std::to_string(int(kind));
        for_each_schedule(rows, n, k, [&](const LinearSchedule& schedule) {
          problem.check(schedule, biased, expected, LinearOutput::kF32, what);
          problem.check(schedule, biased, expected_bf16, LinearOutput::kBf16, what);
        });
      }
      if (n % (2 * kSwigluGroup) != 0) continue;
      std::vector<bf16> activated(size_t(rows) * n / 2);
      linear_swiglu_cpu(pool(), problem.x_host.data(), rows, packed, activated.data());
      for_each_schedule(rows, n, k, [&](const LinearSchedule& schedule) {
        problem.check(schedule, false, activated, LinearOutput::kSwiglu, "operands " + std::to_string(int(kind)));
      });
    }
  }
}

/// What scripts/sanitize.mjs runs.
void small_case() {
  std::mt19937_64 random(13);
  const Problem problem(Operands::kNormal, 70, 272, 136, random);
  std::vector<float> expected(size_t(problem.rows) * problem.n);
  linear_reference(problem.x_host.data(), problem.rows, problem.w_host.data(), problem.n, problem.k,
                   problem.bias_host.data(), expected.data());
  std::vector<bf16> activated(expected.size() / 2);
  linear_swiglu_cpu(pool(), problem.x_host.data(), problem.rows,
                    pack_matrix(pool(), problem.w_host.data(), problem.n, problem.k), activated.data());
  for_each_schedule(problem.rows, problem.n, problem.k, [&](const LinearSchedule& schedule) {
    problem.check(schedule, true, rounded(expected), LinearOutput::kBf16, "a small case");
    problem.check(schedule, false, activated, LinearOutput::kSwiglu, "a small case");
  });
}

void mma_chain_equals_reference() {
  std::mt19937_64 random(12);
  for (Operands kind : kAllOperands) {
    const Problem problem(kind, 61, 77, 456, random);
    std::vector<float> expected(size_t(problem.rows) * problem.n);
    linear_reference(problem.x_host.data(), problem.rows, problem.w_host.data(), problem.n, problem.k,
                     problem.bias_host.data(), expected.data());
    DeviceBuffer<float> y(expected.size());
    launch_mma_chain(problem.x.data(), problem.rows, problem.w.data(), problem.n, problem.k, problem.bias.data(),
                     y.data(), nullptr);
    check_same(y.download(), expected, "operands " + std::to_string(int(kind)));
  }
}

__global__ void round_all(const float* from, bf16* to, size_t count) {
  for (size_t i = blockIdx.x * size_t(blockDim.x) + threadIdx.x; i < count; i += size_t(gridDim.x) * blockDim.x) {
    to[i] = to_bf16(from[i]);
  }
}

__device__ uint32_t bits(float x) { return float_bits(x); }
__device__ uint32_t bits(bf16 x) { return x.bits; }

template <class T>
__global__ void count_differences(const T* a, const T* b, size_t count, unsigned long long* differences) {
  unsigned long long different = 0;
  for (size_t i = blockIdx.x * size_t(blockDim.x) + threadIdx.x; i < count; i += size_t(gridDim.x) * blockDim.x) {
    different += bits(a[i]) != bits(b[i]);
  }
  if (different > 0) atomicAdd(differences, different);
}

template <class T>
unsigned long long differences(const T* a, const T* b, size_t count) {
  DeviceBuffer<unsigned long long> result(std::vector<unsigned long long>{0});
  count_differences<<<1024, 256>>>(a, b, count, result.data());
  CUDA_CHECK(cudaGetLastError());
  return result.download()[0];
}

/// Large matrices, which stay on the device. x is about 1 and w small, so that outputs are about 1.
struct LargeProblem {
  int rows, n, k;
  DeviceBuffer<bf16> x, w, y, expected_bf16, expected_swiglu;
  DeviceBuffer<float> y_f32, expected;

  LargeProblem(int rows, int n, int k, uint64_t seed)
      : rows(rows), n(n), k(k), x(size_t(rows) * k), w(size_t(n) * k), y(size_t(rows) * n), expected_bf16(y.size()),
        expected_swiglu(y.size() / 2), y_f32(y.size()), expected(y.size()) {
    fill<<<1024, 256>>>(x.data(), x.size(), seed, 127);
    fill<<<1024, 256>>>(w.data(), w.size(), seed + 1, 121);
    launch_mma_chain(x.data(), rows, w.data(), n, k, nullptr, expected.data(), nullptr);
    round_all<<<1024, 256>>>(expected.data(), expected_bf16.data(), expected.size());
    swiglu_of_outputs<<<1024, 256>>>(expected_bf16.data(), expected_swiglu.size(), expected_swiglu.data());
    CUDA_CHECK(cudaGetLastError());
  }
  void check(const LinearSchedule& schedule) {
    const std::string name = std::to_string(rows) + " rows, n " + std::to_string(n) + ", schedule " + schedule.text();
    y.poison();
    run_linear(schedule, x.data(), rows, {w.data(), n, k}, nullptr, y.data(), LinearOutput::kBf16, nullptr);
    CHECK_MESSAGE(differences(y.data(), expected_bf16.data(), y.size()) == 0, name << ", bf16");
    y_f32.poison();
    run_linear(schedule, x.data(), rows, {w.data(), n, k}, nullptr, y_f32.data(), LinearOutput::kF32,
               nullptr);
    CHECK_MESSAGE(differences(y_f32.data(), expected.data(), y.size()) == 0, name << ", f32");
    y.poison();
    run_linear(schedule, x.data(), rows, {w.data(), n, k}, nullptr, y.data(), LinearOutput::kSwiglu, nullptr);
    CHECK_MESSAGE(differences(y.data(), expected_swiglu.data(), expected_swiglu.size()) == 0, name << ", SwiGLU");
  }
};

void large_shapes_equal_mma_chain() {
  for (int rows : {1, 13, 64, 200, 700}) {
    LargeProblem problem(rows, 6144, 4096, rows);
    for_each_schedule(rows, 6144, 4096, [&](const LinearSchedule& schedule) { problem.check(schedule); });
  }
  struct Shape {
    int rows, n, k;
  };
  for (const Shape& s :
       {Shape{1, 151936, 1024}, Shape{32, 151936, 1024}, Shape{128, 128256, 1024}, Shape{256, 151936, 1024},
        Shape{1, 4096, 12288}, Shape{128, 4096, 12288}, Shape{256, 24576, 4096}, Shape{4100, 6144, 4096},
        Shape{8192, 4096, 4096}, Shape{16384, 1024, 2048}, Shape{5, 320, 128}, Shape{300, 4096, 256}}) {
    LargeProblem problem(s.rows, s.n, s.k, s.rows + 1);
    problem.check(choose_linear_schedule(s.rows, s.n, s.k, LinearOutput::kBf16, multiprocessors()));
  }
}

/// Layers that read what the one before wrote, back to back and in a replayed graph: dependent launches overlap, and
/// each overwrites what the one before it read.
void launches_overlap_safely() {
  constexpr int kSize = 2048, kLayers = 24;
  cudaStream_t stream;
  CUDA_CHECK(cudaStreamCreate(&stream));
  DeviceBuffer<bf16> weights(size_t(kSize) * kSize * 3);
  // Variance 1/k, so that outputs stay about 1 over the layers.
  fill<<<1024, 256>>>(weights.data(), weights.size(), 5, 121);
  for (int rows : {1, 8, 40, 128, 256, 1500}) {
    DeviceBuffer<bf16> start(size_t(rows) * kSize), a(start.size()), b(start.size()), expected(start.size());
    DeviceBuffer<float> exact(start.size());
    fill<<<1024, 256>>>(start.data(), start.size(), 6, 127);
    auto layer = [&](int i) { return weights.data() + size_t(i % 3) * kSize * kSize; };
    CUDA_CHECK(cudaMemcpy(expected.data(), start.data(), start.size() * 2, cudaMemcpyDeviceToDevice));
    for (int i = 0; i < kLayers; ++i) {
      launch_mma_chain(expected.data(), rows, layer(i), kSize, kSize, nullptr, exact.data(), nullptr);
      round_all<<<1024, 256>>>(exact.data(), expected.data(), exact.size());
    }
    CUDA_CHECK(cudaDeviceSynchronize());
    auto run = [&] {
      CUDA_CHECK(cudaMemcpyAsync(a.data(), start.data(), start.size() * 2, cudaMemcpyDeviceToDevice, stream));
      for (int i = 0; i < kLayers; i += 2) {
        linear_cuda(a.data(), rows, {layer(i), kSize, kSize}, nullptr, b.data(), stream);
        linear_cuda(b.data(), rows, {layer(i + 1), kSize, kSize}, nullptr, a.data(), stream);
      }
    };
    auto check = [&](const char* what) {
      CUDA_CHECK(cudaStreamSynchronize(stream));
      CHECK_MESSAGE(differences(a.data(), expected.data(), a.size()) == 0, what << ", " << rows << " rows");
    };
    for (int i = 0; i < 5; ++i) run();
    check("launches");
    cudaGraph_t graph;
    cudaGraphExec_t replay;
    CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    run();
    CUDA_CHECK(cudaStreamEndCapture(stream, &graph));
    CUDA_CHECK(cudaGraphInstantiate(&replay, graph, 0));
    for (int i = 0; i < 20; ++i) {
      CUDA_CHECK(cudaGraphLaunch(replay, stream));
      check("a graph");
    }
    CUDA_CHECK(cudaGraphExecDestroy(replay));
    CUDA_CHECK(cudaGraphDestroy(graph));
  }
  CUDA_CHECK(cudaStreamDestroy(stream));
}

void ragged_gates_are_refused() {
  CHECK_EQ(MESSAGE_OF(Error, linear_swiglu_cuda(nullptr, 1, {nullptr, 24, 8}, nullptr, nullptr)),
           "gates and ups are multiples of 8, not 12");
}

}  // namespace

extern const TestTable kCudaLinearTests = {"cuda linear",
                                           {{"every tile equals the CPU", every_tile_equals_cpu},
                                            {"a chain of mma.sync equals the reference", mma_chain_equals_reference},
                                            {"large shapes equal the chain of mma.sync", large_shapes_equal_mma_chain},
                                            {"launches overlap safely", launches_overlap_safely},
                                            {"ragged gates are refused", ragged_gates_are_refused},
                                            {"a small case of every kernel", small_case}}};

}  // namespace detinfer::testing
