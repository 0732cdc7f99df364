// A layer of experts of Qwen3-30B-A3B: router, choice, gate and up with SwiGLU, down, combination, beside the floor of
// the experts that are really hit.
#include "bench/moe_bench.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "bench/gpu_timing.cuh"
#include "core/cuda_memory.cuh"
#include "kernels/linear/linear_cuda.h"
#include "kernels/linear/run_linear.h"
#include "kernels/moe/few_rows.h"
#include "kernels/moe/run_expert_linear.h"

namespace detinfer {
namespace {

constexpr int kHidden = 2048, kIntermediate = 768;
constexpr RouteSpec kSpec = {128, 8, true};
/// Weights and inputs that take turns, so that L2 holds no weights and each launch hits other experts.
constexpr int kCopies = 2, kInputs = 8;
constexpr size_t kGateUp = size_t(kSpec.experts) * 2 * kIntermediate * kHidden;
constexpr size_t kDown = size_t(kSpec.experts) * kHidden * kIntermediate;
/// Operations per second that cuBLAS reached on the largest product of random data on an H200.
constexpr double kPeak = 790e12;

struct Weights {
  Values router{size_t(kSpec.experts) * kHidden, 1}, gate_up{kGateUp * kCopies, 2}, down{kDown * kCopies, 3};

  Weights() {
    fill_normal(router.data(), router.count(), 1, 0.02f);
    fill_normal(gate_up.data(), gate_up.count(), 2, 0.02f);
    fill_normal(down.data(), down.count(), 3, 0.02f);
  }
};

struct Routes {
  explicit Routes(int rows)
      : experts(CudaMemory::kDevice, rows * kSpec.top_k),
        weights(CudaMemory::kDevice, rows * kSpec.top_k),
        first(CudaMemory::kDevice, kSpec.experts + 1),
        row(CudaMemory::kDevice, rows * kSpec.top_k),
        place(CudaMemory::kDevice, rows * kSpec.top_k) {}
  ExpertRoutes view() const { return {experts.data(), weights.data(), first.data(), row.data(), place.data()}; }

  CudaArray<int32_t> experts;
  CudaArray<float> weights;
  CudaArray<int32_t> first, row, place;
};

/// The operations of a layer; the i-th launch has input and weights of its own.
class Layer {
 public:
  Layer(const Weights& weights, int rows)
      : rows_(rows),
        weights_(weights),
        router_{weights.router.data(), kSpec.experts, kHidden},
        x_(size_t(kInputs) * rows * kHidden, 4),
        activated_(size_t(rows) * kSpec.top_k * kIntermediate, 6),
        y_(size_t(rows) * kSpec.top_k * kHidden, 7),
        out_(size_t(rows) * kHidden, 8),
        logits_(CudaMemory::kDevice, int64_t(rows) * kSpec.experts) {
    for (int i = 0; i < kInputs; ++i) {
      routes_.push_back(std::make_unique<Routes>(rows));
      router(i, nullptr);
      route(i, nullptr);
      std::vector<int32_t> first(kSpec.experts + 1);
      CUDA_CHECK(cudaMemcpy(first.data(), routes_[i]->first.data(), first.size() * 4, cudaMemcpyDeviceToHost));
      for (int e = 0; e < kSpec.experts; ++e) hit_ += double(first[e] < first[e + 1]) / kInputs;
    }
  }

  /// A whole layer as a model runs it.
  void run(int i, cudaStream_t stream) const {
    experts_cuda(x(i), rows_, kSpec, router_, gate_up_of(i), down_of(i),
                 {logits_.data(), routes(i), activated_.data(), y_.data()}, out_.data(), stream);
  }

  /// Its launches where experts_cuda() goes the way for few rows, or the other.
  bool few() const { return are_few_rows(rows_, kSpec); }
  void few_gate_up(int i, cudaStream_t stream) const {
    few_rows_gate_up_cuda(x(i), logits_.data(), rows_, kSpec, gate_up_of(i), activated_.data(), stream);
  }
  void few_down(int i, cudaStream_t stream) const {
    few_rows_down_cuda(activated_.data(), logits_.data(), rows_, kSpec, down_of(i), out_.data(), stream);
  }
  void router(int i, cudaStream_t stream) const {
    linear_cuda(x(i), rows_, router_, nullptr, logits_.data(), stream);
  }
  void route(int i, cudaStream_t stream) const { route_experts_cuda(logits_.data(), rows_, kSpec, routes(i), stream); }
  void gate_up(int i, cudaStream_t stream) const { gate_up(i, stream, schedule(2 * kIntermediate, kHidden)); }
  void gate_up(int i, cudaStream_t stream, const ExpertSchedule& s) const {
    run_expert_linear(s, x(i), rows_, kSpec, routes(i), true, gate_up_of(i), activated_.data(), true, stream);
  }
  void down(int i, cudaStream_t stream) const { down(i, stream, schedule(kHidden, kIntermediate)); }
  void down(int i, cudaStream_t stream, const ExpertSchedule& s) const {
    run_expert_linear(s, activated_.data(), rows_, kSpec, routes(i), false, down_of(i), y_.data(), false, stream);
  }
  void combine(int i, cudaStream_t stream) const {
    combine_experts_cuda(y_.data(), rows_, kHidden, kSpec, routes(i), out_.data(), stream);
  }

  ExpertSchedule schedule(int n, int k) const {
    return choose_expert_schedule(rows_, kSpec.experts, kSpec.top_k, n, k, multiprocessors());
  }
  /// Experts that a launch hits, on average.
  double hit() const { return hit_; }
  /// Seconds in which weights can be read or products computed.
  double floor(double bandwidth) const {
    const double matrices = 3.0 * kIntermediate * kHidden, router = double(kSpec.experts) * kHidden;
    return std::max(2 * (hit_ * matrices + router) / bandwidth,
                    2 * rows_ * (kSpec.top_k * matrices + router) / kPeak);
  }

 private:
  const bf16* x(int i) const { return x_.data() + size_t(i % kInputs) * rows_ * kHidden; }
  ExpertRoutes routes(int i) const { return routes_[i % kInputs]->view(); }
  DeviceMatrix gate_up_of(int i) const {
    return {weights_.gate_up.data() + i % kCopies * kGateUp, kSpec.experts * 2 * kIntermediate, kHidden};
  }
  DeviceMatrix down_of(int i) const {
    return {weights_.down.data() + i % kCopies * kDown, kSpec.experts * kHidden, kIntermediate};
  }

  int rows_;
  const Weights& weights_;
  DeviceMatrix router_;
  Values x_, activated_, y_, out_;
  CudaArray<float> logits_;
  std::vector<std::unique_ptr<Routes>> routes_;
  double hit_ = 0;
};

/// Microseconds of one launch.
template <class Launch>
double time(int rows, const Launch& launch) {
  return time_graph(rows > 1024 ? kInputs / 2 : 2 * kInputs, rows > 1024 ? 7 : 15, launch).median * 1e6;
}

}  // namespace

void bench_moe_cuda(double bandwidth) {
  std::printf("\nexperts, hidden %d, %d of %d experts of %d; us of one launch in a graph of dependent launches\n",
              kHidden, kSpec.top_k, kSpec.experts, kIntermediate);
  std::printf("%6s %6s %8s %8s %7s | %7s %7s %8s %8s %8s\n", "rows", "hit", "layer", "floor", "ratio", "router",
              "route", "gate_up", "down", "combine");
  const Weights weights;
  for (int rows : {1, 2, 4, 16, 64, 128, 512, 1024, 2048, 4096, 8192}) {
    const Layer layer(weights, rows);
    const double all = time(rows, [&](int i, cudaStream_t stream) { layer.run(i, stream); });
    const double floor = layer.floor(bandwidth) * 1e6;
    std::printf("%6d %6.1f %8.1f %8.1f %7.2f |", rows, layer.hit(), all, floor, all / floor);
    const auto column = [&](int width, const auto& launch) { std::printf(" %*.1f", width, time(rows, launch)); };
    column(7, [&](int i, cudaStream_t stream) { layer.router(i, stream); });
    if (layer.few()) {
      column(16, [&](int i, cudaStream_t stream) { layer.few_gate_up(i, stream); });
      column(8, [&](int i, cudaStream_t stream) { layer.few_down(i, stream); });
      std::printf("\n");
      continue;
    }
    column(7, [&](int i, cudaStream_t stream) { layer.route(i, stream); });
    column(8, [&](int i, cudaStream_t stream) { layer.gate_up(i, stream); });
    column(8, [&](int i, cudaStream_t stream) { layer.down(i, stream); });
    column(8, [&](int i, cudaStream_t stream) { layer.combine(i, stream); });
    std::printf("  %s, %s\n", layer.schedule(2 * kIntermediate, kHidden).text().c_str(),
                layer.schedule(kHidden, kIntermediate).text().c_str());
  }
}

void bench_moe_schedules(const char* rows_list) {
  const Weights weights;
  for (char* end; std::strtol(rows_list, &end, 10) > 0; rows_list = *end == ',' ? end + 1 : end) {
    const int rows = int(std::strtol(rows_list, &end, 10));
    const Layer layer(weights, rows);
    std::printf("%d rows, %.1f experts:", rows, layer.hit());
    for (int tile = 0; tile < kExpertTileCount; ++tile) {
      for (int entries : kExpertWidths) {
        if (entries > kExpertTiles[tile].entries || (entries > 16 && entries > 2 * rows)) continue;
        const auto schedule = [&](int n, int k) {
          return schedule_of_expert_tile(tile, kExpertTiles[tile].outputs(), entries, rows, kSpec.experts, kSpec.top_k, n,
                                         k, multiprocessors());
        };
        const ExpertSchedule gate_up = schedule(2 * kIntermediate, kHidden), down = schedule(kHidden, kIntermediate);
        std::printf(" | %s: %.1f %.1f", gate_up.text().c_str(),
                    time(rows, [&](int i, cudaStream_t stream) { layer.gate_up(i, stream, gate_up); }),
                    time(rows, [&](int i, cudaStream_t stream) { layer.down(i, stream, down); }));
      }
    }
    std::printf("\n");
  }
}

}  // namespace detinfer
