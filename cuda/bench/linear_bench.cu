// linear: the four layers of a Qwen3-8B layer, gate_up with and without SwiGLU, and its lm_head, beside cuBLAS in the
// same run, which has no SwiGLU, cuBLAS with a launch of SwiGLU behind gate_up, and the floor.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "bench/cublas.h"
#include "bench/gpu_timing.cuh"
#include "bench/linear_bench.h"
#include "bench/swiglu_launch.cuh"
#include "core/cuda_memory.cuh"
#include "kernels/linear/linear_cuda.h"
#include "kernels/linear/run_linear.h"

namespace detinfer {
namespace {

struct Layer {
  const char* name;
  int n, k;
  /// Copies of the weights that take turns, so that L2 holds none.
  int copies;
  LinearOutput output;
  /// Whether the next of kLayers is this one with SwiGLU.
  bool swiglu_follows = false;

  double output_bytes() const {
    return output == LinearOutput::kF32 ? 4.0 * n : output == LinearOutput::kBf16 ? 2.0 * n : double(n);
  }
};

constexpr Layer kLayers[] = {{"qkv", 6144, 4096, 6, LinearOutput::kBf16},
                             {"o", 4096, 4096, 6, LinearOutput::kBf16},
                             {"gate_up", 24576, 4096, 4, LinearOutput::kBf16, true},
                             {"+ SwiGLU", 24576, 4096, 4, LinearOutput::kSwiglu},
                             {"down", 4096, 12288, 4, LinearOutput::kBf16}};
constexpr Layer kHead = {"lm_head", 151936, 4096, 2, LinearOutput::kF32};

/// Operations per second that cuBLAS reached on the largest product of random data on an H200.
constexpr double kPeak = 790e12;

class Operands {
 public:
  Operands(const Layer& layer, int rows)
      : layer_(layer),
        rows_(rows),
        x_(CudaMemory::kDevice, int64_t(rows) * layer.k),
        y_(CudaMemory::kDevice, int64_t(rows) * layer.n * (layer.output == LinearOutput::kF32 ? 2 : 1)),
        w_(CudaMemory::kDevice, int64_t(layer.copies) * layer.n * layer.k),
        activated_(CudaMemory::kDevice, layer.output == LinearOutput::kSwiglu ? int64_t(rows) * layer.n / 2 : 1) {
    fill_normal(x_.data(), size_t(rows) * layer.k, 1);
    fill_normal(w_.data(), size_t(layer.copies) * layer.n * layer.k, 2, 0.02f);
  }

  const bf16* weights(int copy) const { return w_.data() + int64_t(copy % layer_.copies) * layer_.n * layer_.k; }
  std::unique_ptr<TimedGraph> graph(const LinearSchedule& schedule, int rows, Overlap overlap) const {
    return std::make_unique<TimedGraph>(launches(rows), overlap, [&](int i, cudaStream_t stream) {
      run_linear(schedule, x_.data(), rows, {weights(i), layer_.n, layer_.k}, nullptr, y_.data(), layer_.output,
                 stream);
    });
  }
  /// cuBLAS, with SwiGLU in a launch of its own if that is asked for.
  std::unique_ptr<TimedGraph> graph(const Cublas& cublas, int rows, bool swiglu) const {
    return std::make_unique<TimedGraph>(launches(rows), Overlap::kNone, [&](int i, cudaStream_t stream) {
      cublas.multiply(x_.data(), rows, weights(i), layer_.n, layer_.k, y_.data(), layer_.output == LinearOutput::kF32,
                      stream);
      if (swiglu) launch_swiglu(y_.data(), rows, layer_.n, activated_.data(), stream);
    });
  }

 private:
  int launches(int rows) const { return rows > 1024 ? 2 : layer_.copies * 2; }

  Layer layer_;
  int rows_;
  CudaArray<bf16> x_, y_, w_, activated_;
};

double floor_of(const Layer& layer, int rows, double bandwidth) {
  const double n = layer.n, k = layer.k;
  const double bytes = 2 * (n * k + rows * k) + rows * layer.output_bytes();
  return std::max(bytes / bandwidth, 2 * n * k * rows / kPeak);
}

/// Seconds; without cuBLAS both of its are 0.
struct Row {
  double plain = 0, dependent = 0, cublas = 0, cublas_swiglu = 0, floor = 0;
  Row& operator+=(const Row& other) {
    plain += other.plain;
    dependent += other.dependent;
    cublas += other.cublas;
    cublas_swiglu += other.cublas_swiglu;
    floor += other.floor;
    return *this;
  }
  void print(int rows, const char* name, const std::string& schedule) const {
    std::printf("%6d %-12s %8.1f %8.1f %8.1f %8.1f %8.1f %9.3f %9.3f %9.3f %9.3f  %s\n", rows, name, plain * 1e6,
                dependent * 1e6, cublas * 1e6, cublas_swiglu * 1e6, floor * 1e6, cublas > 0 ? plain / cublas : 0.0,
                cublas > 0 ? dependent / cublas : 0.0, cublas > 0 ? plain / cublas_swiglu : 0.0, plain / floor,
                schedule.c_str());
  }
};

Row measure(const Operands& operands, const Cublas& cublas, const Layer& layer, int rows, double bandwidth) {
  const LinearSchedule schedule = choose_linear_schedule(rows, layer.n, layer.k, layer.output, multiprocessors());
  const auto plain = operands.graph(schedule, rows, Overlap::kNone);
  const auto dependent = operands.graph(schedule, rows, Overlap::kDependentLaunch);
  std::vector<TimedGraph*> graphs = {plain.get(), dependent.get()};
  std::unique_ptr<TimedGraph> reference, with_swiglu;
  if (cublas.found()) {
    reference = operands.graph(cublas, rows, false);
    graphs.push_back(reference.get());
    if (layer.output == LinearOutput::kSwiglu) {
      with_swiglu = operands.graph(cublas, rows, true);
      graphs.push_back(with_swiglu.get());
    }
  }
  replay_in_turn(graphs, rows > 1024 ? 7 : 15);
  Row row;
  row.plain = plain->seconds();
  row.dependent = dependent->seconds();
  row.cublas = reference ? reference->seconds() : 0;
  row.cublas_swiglu = with_swiglu ? with_swiglu->seconds() : row.cublas;
  row.floor = floor_of(layer, rows, bandwidth);
  row.print(rows, layer.name, schedule.text());
  return row;
}

/// A schedule and its times, with and without overlap.
struct Candidate {
  LinearSchedule schedule;
  std::unique_ptr<TimedGraph> plain, dependent;

  void print() const {
    std::printf(" | %s: %.1f %.1f", schedule.text().c_str(), plain->seconds() * 1e6, dependent->seconds() * 1e6);
  }
};

/// Every tile with every depth of the pipeline that one replay finds within 15% of the fastest, by time.
std::vector<Candidate> fast_schedules(const Operands& operands, const Layer& layer, int rows, TimedGraph* reference) {
  constexpr int kShallowest = 3;
  std::vector<Candidate> all;
  double best = 1;
  for (int tile = 0; tile < kLinearTileCount; ++tile) {
    LinearSchedule s = schedule_of_tile(tile, rows, layer.n, layer.k, multiprocessors());
    for (s.stages = std::min(kShallowest, s.steps); s.stages <= s.steps && s.shared_bytes() <= kSharedBytes; ++s.stages) {
      all.push_back({s, operands.graph(s, rows, Overlap::kNone), operands.graph(s, rows, Overlap::kDependentLaunch)});
      replay_in_turn({all.back().plain.get()}, 1);
      best = std::min(best, all.back().plain->seconds());
    }
  }
  const auto slow = [&](const Candidate& c) { return c.plain->seconds() > 1.15 * best; };
  all.erase(std::remove_if(all.begin(), all.end(), slow), all.end());
  std::vector<TimedGraph*> graphs;
  for (const Candidate& c : all) graphs.insert(graphs.end(), {c.plain.get(), c.dependent.get()});
  if (reference != nullptr) graphs.push_back(reference);
  replay_in_turn(graphs, 7);
  std::sort(all.begin(), all.end(), [](const Candidate& a, const Candidate& b) {
    return a.plain->seconds() + a.dependent->seconds() < b.plain->seconds() + b.dependent->seconds();
  });
  return all;
}

}  // namespace

void bench_linear_cuda(double bandwidth) {
  const Cublas cublas;
  std::printf("\nlinear, us of one launch in a graph; memory reads at %.2f TB/s%s\n", bandwidth * 1e-12,
              cublas.found() ? "" : "; no cuBLAS found: name it in $CUBLAS");
  std::printf("%6s %-12s %8s %8s %8s %8s %8s %9s %9s %9s %9s\n", "rows", "layer", "ours", "overlap", "cuBLAS",
              "and SwiGLU", "floor", "/cuBLAS", "overlap/", "/and SwiGLU", "/floor");
  const std::vector<int> all_rows = {1, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 8192};
  std::vector<Row> products(all_rows.size()), with_swiglu(all_rows.size());
  for (const Layer& layer : kLayers) {
    const Operands operands(layer, all_rows.back());
    for (size_t i = 0; i < all_rows.size(); ++i) {
      const Row row = measure(operands, cublas, layer, all_rows[i], bandwidth);
      if (layer.output != LinearOutput::kSwiglu) products[i] += row;
      if (!layer.swiglu_follows) with_swiglu[i] += row;
    }
  }
  for (size_t i = 0; i < all_rows.size(); ++i) products[i].print(all_rows[i], "sum", "");
  for (size_t i = 0; i < all_rows.size(); ++i) with_swiglu[i].print(all_rows[i], "sum + SwiGLU", "");
  const Operands operands(kHead, 256);
  for (int rows : {1, 8, 16, 32, 64, 128, 256}) measure(operands, cublas, kHead, rows, bandwidth);
}

void bench_linear_schedules(const char* rows_list) {
  constexpr size_t kPrinted = 7;
  const Cublas cublas;
  std::vector<int> all_rows;
  for (char* end; std::strtol(rows_list, &end, 10) > 0; rows_list = *end == ',' ? end + 1 : end) {
    all_rows.push_back(int(std::strtol(rows_list, &end, 10)));
  }
  if (all_rows.empty()) {
    throw Error(ErrorCode::kInvalidRequest, "linear-schedules needs numbers of rows, such as 1,64,1024");
  }
  const int most = *std::max_element(all_rows.begin(), all_rows.end());
  std::vector<Layer> layers(std::begin(kLayers), std::end(kLayers));
  if (most <= 256) layers.push_back(kHead);
  for (const Layer& layer : layers) {
    const Operands operands(layer, most);
    for (int rows : all_rows) {
      const auto reference = cublas.found() ? operands.graph(cublas, rows, false) : nullptr;
      const std::vector<Candidate> fast = fast_schedules(operands, layer, rows, reference.get());
      std::printf("%d %s: cuBLAS %.1f; chosen %s", rows, layer.name, reference ? reference->seconds() * 1e6 : 0.0,
                  choose_linear_schedule(rows, layer.n, layer.k, layer.output, multiprocessors()).text().c_str());
      for (size_t i = 0; i < std::min(kPrinted, fast.size()); ++i) fast[i].print();
      std::printf("\n");
    }
  }
}

}  // namespace detinfer
