// The mixture of experts on a GPU against the references and, on large shapes, against a chain of mma.sync: every bit of
// routes, products by every tile and width, and combinations; in launches and in a replayed graph.
#include <algorithm>
#include <string>

#include "core/cuda_check.h"
#include "core/thread_pool.h"
#include "kernels/linear/linear.h"
#include "kernels/linear/run_linear.h"
#include "kernels/moe/run_expert_linear.h"
#include "tests/cuda/device_buffer.h"
#include "tests/cuda/fill.cuh"
#include "tests/cuda/mma_chain.cuh"
#include "tests/cuda/swiglu_of_outputs.cuh"
#include "tests/native/check.h"
#include "tests/native/operands.h"
#include "tests/native/routes.h"

namespace detinfer::testing {
namespace {

constexpr RouteSpec kSpecs[] = {{1, 1, true},   {4, 4, false},  {7, 3, true},    {16, 4, true},   {128, 8, true},
                                {128, 8, false}, {60, 4, false}, {512, 32, true}, {512, 32, false}, {160, 6, true}};

/// Routes in the device's memory.
struct DeviceRoutes {
  DeviceRoutes(int rows, const RouteSpec& spec)
      : experts(size_t(rows) * spec.top_k),
        weights(experts.size()),
        first(size_t(spec.experts) + 1),
        row(experts.size()),
        place(experts.size()) {
    poison();
  }
  explicit DeviceRoutes(const Routes& host)
      : experts(host.experts), weights(host.weights), first(host.first), row(host.row), place(host.place) {}

  ExpertRoutes view() { return {experts.data(), weights.data(), first.data(), row.data(), place.data()}; }
  void poison() {
    for (DeviceBuffer<int32_t>* array : {&experts, &first, &row, &place}) array->poison();
    weights.poison();
  }

  DeviceBuffer<int32_t> experts;
  DeviceBuffer<float> weights;
  DeviceBuffer<int32_t> first, row, place;
};

void check_routes(const DeviceRoutes& actual, const Routes& expected, const std::string& what) {
  CHECK_MESSAGE(actual.experts.download() == expected.experts, what << ": experts");
  check_same(actual.weights.download(), expected.weights, what + ": weights");
  CHECK_MESSAGE(actual.first.download() == expected.first, what << ": first");
  CHECK_MESSAGE(actual.row.download() == expected.row, what << ": row");
  CHECK_MESSAGE(actual.place.download() == expected.place, what << ": place");
}

std::string named(const RouteSpec& spec, int rows) {
  return std::to_string(spec.top_k) + " of " + std::to_string(spec.experts) + ", " + std::to_string(rows) + " rows";
}

void routes_equal_reference() {
  std::mt19937_64 random(41);
  for (const RouteSpec& spec : kSpecs) {
    for (RouterLogits kind : kAllRouterLogits) {
      for (int rows : {1, 2, 31, 32, 33, 70, 517}) {
        if (rows > 100 && spec.experts == 512 && kind != RouterLogits::kNormal) continue;
        const auto logits = draw_logits(kind, rows, spec, random);
        const DeviceBuffer<float> logits_device(logits);
        Routes expected(rows, spec);
        DeviceRoutes actual(rows, spec);
        route_experts_reference(logits.data(), rows, spec, expected.view());
        route_experts_cuda(logits_device.data(), rows, spec, actual.view(), nullptr);
        check_routes(actual, expected, named(spec, rows) + ", logits " + std::to_string(int(kind)));
      }
    }
  }
  // As many rows as a pass has.
  const RouteSpec spec{128, 8, true};
  ThreadPool pool(2);
  for (RouterLogits kind : {RouterLogits::kNormal, RouterLogits::kOneExpert}) {
    const int rows = 8704;
    const auto logits = draw_logits(kind, rows, spec, random);
    Routes expected(rows, spec);
    DeviceRoutes actual(rows, spec);
    route_experts_cpu(pool, logits.data(), rows, spec, expected.view());
    route_experts_cuda(DeviceBuffer<float>(logits).data(), rows, spec, actual.view(), nullptr);
    check_routes(actual, expected, named(spec, rows));
  }
}

struct Shape {
  RouteSpec spec;
  int rows;
  int n;
  int k;
};

std::string to_text(const Shape& s) {
  return named(s.spec, s.rows) + ", n " + std::to_string(s.n) + ", k " + std::to_string(s.k);
}

/// Every tile for a shape at its widest, at a narrower one, and with the shallowest pipeline, and with fewer outputs.
template <class Body>
void for_each_schedule(const Shape& s, const Body& body) {
  for (int tile = 0; tile < kExpertTileCount; ++tile) {
    for (int entries : {kExpertTiles[tile].entries, 16, 8}) {
      const auto schedule = [&](int outputs) {
        return schedule_of_expert_tile(tile, outputs, entries, s.rows, s.spec.experts, s.spec.top_k, s.n, s.k,
                                       multiprocessors());
      };
      body(schedule(kExpertTiles[tile].outputs()));
      if (entries != 16) continue;
      ExpertSchedule shallow = schedule(80);
      body(shallow);
      shallow.stages = 2;
      body(shallow);
    }
  }
}

/// Runs a product and checks every output, and that nothing behind them is written.
void check_product(const ExpertSchedule& schedule, const Shape& s, DeviceRoutes& routes, bool gather,
                   const DeviceBuffer<bf16>& x, const DeviceBuffer<bf16>& w, bool swiglu,
                   const std::vector<bf16>& expected, const std::string& what) {
  constexpr size_t kGuard = 4096;
  DeviceBuffer<bf16> y(expected.size() + kGuard);
  y.poison();
  run_expert_linear(schedule, x.data(), s.rows, s.spec, routes.view(), gather,
                    {w.data(), s.spec.experts * s.n, s.k}, y.data(), swiglu, nullptr);
  const std::vector<bf16> actual = y.download();
  const std::string name = what + ", " + to_text(s) + (gather ? ", gathered" : "") + (swiglu ? ", SwiGLU" : "") +
                           ", schedule " + schedule.text();
  for (size_t i = 0; i < actual.size(); ++i) {
    // The poison is a NaN of other bits than any result's.
    const bool written = actual[i].bits != 0xFFFF;
    CHECK_MESSAGE(written == (i < expected.size()), name << ": element " << i << " of " << expected.size());
    CHECK_MESSAGE(!written || same(actual[i], expected[i]), name << ": element " << i);
  }
}

std::vector<bf16> with_nans(std::vector<bf16> values, size_t count) {
  values.resize(values.size() + count, bf16{0x7FC1});
  return values;
}

void compare_experts(const Shape& s, Operands kind, RouterLogits logits_kind, std::mt19937_64& random) {
  const auto& [spec, rows, n, k] = s;
  const int entries = rows * spec.top_k;
  Routes routes(rows, spec);
  route_experts_reference(draw_logits(logits_kind, rows, spec, random).data(), rows, spec, routes.view());
  DeviceRoutes device_routes(routes);
  const auto w = draw(kind, size_t(spec.experts) * n * k, random), x = draw(kind, size_t(entries) * k, random);
  const DeviceBuffer<bf16> w_device(with_nans(w, size_t(300) * k)), x_device(with_nans(x, size_t(300) * k));
  std::vector<bf16> expected(size_t(entries) * n), expected_out(size_t(rows) * n);
  const std::string what = "operands " + std::to_string(int(kind)) + ", logits " + std::to_string(int(logits_kind));
  for (bool gather : {true, false}) {
    expert_linear_reference(x.data(), rows, spec, routes.view(), gather, w.data(), n, k, expected.data());
    for_each_schedule(s, [&](const ExpertSchedule& schedule) {
      check_product(schedule, s, device_routes, gather, x_device, w_device, false, expected, what);
    });
  }
  if (n % (2 * kSwigluGroup) == 0) {
    ThreadPool pool(2);
    std::vector<bf16> activated(expected.size() / 2);
    const PackedMatrix packed = pack_matrix(pool, w.data(), spec.experts * n, k);
    expert_linear_swiglu_cpu(pool, x.data(), rows, spec, routes.view(), packed, activated.data());
    for_each_schedule(s, [&](const ExpertSchedule& schedule) {
      check_product(schedule, s, device_routes, true, x_device, w_device, true, activated, what);
    });
  }
  combine_experts_reference(expected.data(), rows, n, spec, routes.view(), expected_out.data());
  DeviceBuffer<bf16> out(expected_out.size());
  out.poison();
  combine_experts_cuda(DeviceBuffer<bf16>(expected).data(), rows, n, spec, device_routes.view(), out.data(), nullptr);
  check_same(out.download(), expected_out, what + ", " + to_text(s) + ", combined");
}

void ragged_outputs_are_refused() {
  CHECK_EQ(MESSAGE_OF(Error, combine_experts_cuda(nullptr, 1, 12, {2, 1, true}, {}, nullptr, nullptr)),
           "experts on a GPU have a multiple of 8 outputs, not 12; use --device cpu");
  CHECK_EQ(MESSAGE_OF(Error, expert_linear_cuda(nullptr, 1, {2, 1, true}, {}, true, {nullptr, 20, 8}, nullptr, nullptr)),
           "experts on a GPU have a multiple of 8 outputs, not 10; use --device cpu");
  CHECK_EQ(MESSAGE_OF(Error,
                      expert_linear_swiglu_cuda(nullptr, 1, {2, 1, true}, {}, {nullptr, 48, 8}, nullptr, nullptr)),
           "experts on a GPU have a multiple of 8 outputs, not 12; use --device cpu");
}

void experts_equal_reference() {
  std::mt19937_64 random(42);
  for (Operands kind : kAllOperands) {
    for (RouterLogits logits : {RouterLogits::kNormal, RouterLogits::kOneExpert, RouterLogits::kSpecial}) {
      compare_experts({{8, 2, true}, 9, 64, 32}, kind, logits, random);
      // Outputs that are no multiple of a tile, a k that ends within a step.
      compare_experts({{5, 3, false}, 4, 136, 24}, kind, logits, random);
      compare_experts({{5, 2, true}, 5, 176, 24}, kind, logits, random);
      compare_experts({{16, 4, true}, 3, 8, 16}, kind, logits, random);
      compare_experts({{3, 1, true}, 1, 152, 136}, kind, logits, random);
    }
  }
  // More rows for one expert than a tile holds, and every width.
  compare_experts({{4, 2, true}, 150, 80, 72}, Operands::kNormal, RouterLogits::kOneExpert, random);
  compare_experts({{4, 2, true}, 150, 80, 72}, Operands::kAnyBits, RouterLogits::kNormal, random);
  for (int rows = 8; rows <= 312; rows += 16) {
    const int n = rows % 32 == 8 ? 40 : 48;
    compare_experts({{2, 1, true}, rows, n, 80}, Operands::kNormal, RouterLogits::kOneExpert, random);
  }
}

/// What scripts/sanitize.mjs runs.
void small_case() {
  std::mt19937_64 random(45);
  const Shape shape{{8, 2, true}, 40, 144, 72};
  const auto logits = draw_logits(RouterLogits::kNormal, shape.rows, shape.spec, random);
  Routes expected(shape.rows, shape.spec);
  DeviceRoutes actual(shape.rows, shape.spec);
  route_experts_reference(logits.data(), shape.rows, shape.spec, expected.view());
  route_experts_cuda(DeviceBuffer<float>(logits).data(), shape.rows, shape.spec, actual.view(), nullptr);
  check_routes(actual, expected, named(shape.spec, shape.rows));
  compare_experts(shape, Operands::kNormal, RouterLogits::kNormal, random);
}

/// Entry i of the gathered rows is row `row[i]` of x.
__global__ void gather(const bf16* x, const int32_t* row, int k, bf16* to) {
  for (int i = threadIdx.x; i < k; i += blockDim.x) to[int64_t(blockIdx.x) * k + i] = x[int64_t(row[blockIdx.x]) * k + i];
}

__global__ void round_all(const float* from, bf16* to, size_t count) {
  for (size_t i = blockIdx.x * size_t(blockDim.x) + threadIdx.x; i < count; i += size_t(gridDim.x) * blockDim.x) {
    to[i] = to_bf16(from[i]);
  }
}

__global__ void count_differences(const bf16* a, const bf16* b, size_t count, unsigned long long* differences) {
  for (size_t i = blockIdx.x * size_t(blockDim.x) + threadIdx.x; i < count; i += size_t(gridDim.x) * blockDim.x) {
    if (a[i].bits != b[i].bits) atomicAdd(differences, 1ull);
  }
}

/// A layer's product on the device, beside a chain of mma.sync for each expert.
void compare_large(const Shape& s, RouterLogits kind, bool every_schedule, std::mt19937_64& random) {
  const RouteSpec& spec = s.spec;
  const int rows = s.rows, n = s.n, k = s.k;
  const int entries = rows * spec.top_k;
  DeviceRoutes routes(rows, spec);
  route_experts_cuda(DeviceBuffer<float>(draw_logits(kind, rows, spec, random)).data(), rows, spec, routes.view(),
                     nullptr);
  const std::vector<int32_t> first = routes.first.download();
  DeviceBuffer<bf16> x(size_t(rows) * k), gathered(size_t(entries) * k), w(size_t(spec.experts) * n * k);
  DeviceBuffer<bf16> y(size_t(entries) * n), expected_bf16(y.size()), activated(y.size() / 2);
  DeviceBuffer<float> expected(y.size());
  fill<<<1024, 256>>>(x.data(), x.size(), 1, 127);
  fill<<<1024, 256>>>(w.data(), w.size(), 2, 121);
  gather<<<entries, 256>>>(x.data(), routes.row.data(), k, gathered.data());
  for (int e = 0; e < spec.experts; ++e) {
    if (first[e] == first[e + 1]) continue;
    launch_mma_chain(gathered.data() + int64_t(first[e]) * k, first[e + 1] - first[e], w.data() + int64_t(e) * n * k, n,
                     k, nullptr, expected.data() + int64_t(first[e]) * n, nullptr);
  }
  round_all<<<1024, 256>>>(expected.data(), expected_bf16.data(), expected.size());
  swiglu_of_outputs<<<1024, 256>>>(expected_bf16.data(), activated.size(), activated.data());
  const auto run = [&](const ExpertSchedule& schedule, bool gathers, bool swiglu, const DeviceBuffer<bf16>& wanted) {
    y.poison();
    run_expert_linear(schedule, gathers ? x.data() : gathered.data(), rows, spec, routes.view(), gathers,
                      {w.data(), spec.experts * n, k}, y.data(), swiglu, nullptr);
    DeviceBuffer<unsigned long long> differences(std::vector<unsigned long long>{0});
    count_differences<<<1024, 256>>>(y.data(), wanted.data(), wanted.size(), differences.data());
    CUDA_CHECK(cudaGetLastError());
    CHECK_MESSAGE(differences.download()[0] == 0, to_text(s) << (gathers ? ", gathered, " : ", ")
                                                             << (swiglu ? "SwiGLU, " : "") << schedule.text());
  };
  const auto check = [&](const ExpertSchedule& schedule) {
    run(schedule, true, false, expected_bf16);
    run(schedule, false, false, expected_bf16);
    run(schedule, true, true, activated);
  };
  check(choose_expert_schedule(rows, spec.experts, spec.top_k, n, k, multiprocessors()));
  if (every_schedule) for_each_schedule(s, check);
}

void large_shapes_equal_mma_chain() {
  std::mt19937_64 random(43);
  const RouteSpec spec{128, 8, true};
  for (int rows : {1, 2, 16, 128, 700}) {
    compare_large({spec, rows, 1536, 2048}, RouterLogits::kNormal, true, random);
    compare_large({spec, rows, 2048, 768}, RouterLogits::kNormal, false, random);
  }
  compare_large({spec, 4096, 1536, 2048}, RouterLogits::kNormal, false, random);
  compare_large({spec, 4096, 2048, 768}, RouterLogits::kNormal, false, random);
  compare_large({spec, 1000, 512, 1024}, RouterLogits::kOneExpert, true, random);
  compare_large({{512, 10, true}, 300, 256, 512}, RouterLogits::kNormal, true, random);
}

/// A layer of experts: logits to out.
struct Layer {
  Shape s;
  DeviceBuffer<bf16> x, gate_up, down, hidden, y, out;  // n is of gates and ups together
  DeviceBuffer<float> logits;
  DeviceRoutes routes;

  Layer(const Shape& shape, uint64_t seed)
      : s(shape),
        x(size_t(s.rows) * s.k),
        gate_up(size_t(s.spec.experts) * s.n * s.k),
        down(gate_up.size() / 2),
        hidden(size_t(s.rows) * s.spec.top_k * s.n / 2),
        y(size_t(s.rows) * s.spec.top_k * s.k),
        out(x.size()),
        logits(size_t(s.rows) * s.spec.experts),
        routes(s.rows, s.spec) {
    fill<<<1024, 256>>>(x.data(), x.size(), seed, 127);
    fill<<<1024, 256>>>(gate_up.data(), gate_up.size(), seed + 1, 121);
    fill<<<1024, 256>>>(down.data(), down.size(), seed + 2, 121);
    CUDA_CHECK(cudaGetLastError());
  }
  /// Two rounds, each overwriting what the one before read.
  void run(cudaStream_t stream) {
    const int experts = s.spec.experts;
    const bf16* from = x.data();
    for (int round = 0; round < 2; ++round) {
      route_experts_cuda(logits.data(), s.rows, s.spec, routes.view(), stream);
      expert_linear_swiglu_cuda(from, s.rows, s.spec, routes.view(), {gate_up.data(), experts * s.n, s.k},
                                hidden.data(), stream);
      expert_linear_cuda(hidden.data(), s.rows, s.spec, routes.view(), false, {down.data(), experts * s.k, s.n / 2},
                         y.data(), stream);
      combine_experts_cuda(y.data(), s.rows, s.k, s.spec, routes.view(), out.data(), stream);
      from = out.data();
    }
  }
};

/// A recorded layer is replayed for logits that it was not recorded with, and equals the same launches one at a time.
void a_graph_follows_its_logits() {
  std::mt19937_64 random(44);
  cudaStream_t stream;
  CUDA_CHECK(cudaStreamCreate(&stream));
  const RouteSpec spec{32, 4, true};
  for (int rows : {1, 8, 40, 200, 1500}) {
    Layer layer({spec, rows, 512, 512}, 7);
    cudaGraph_t graph;
    cudaGraphExec_t replay;
    CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    layer.run(stream);
    CUDA_CHECK(cudaStreamEndCapture(stream, &graph));
    CUDA_CHECK(cudaGraphInstantiate(&replay, graph, 0));
    std::vector<bf16> before;
    for (RouterLogits kind : {RouterLogits::kNormal, RouterLogits::kNormal, RouterLogits::kTies,
                              RouterLogits::kOneExpert, RouterLogits::kNormal}) {
      const auto logits = draw_logits(kind, rows, spec, random);
      CUDA_CHECK(cudaMemcpy(layer.logits.data(), logits.data(), logits.size() * 4, cudaMemcpyHostToDevice));
      layer.routes.poison();
      CUDA_CHECK(cudaDeviceSynchronize());
      CUDA_CHECK(cudaGraphLaunch(replay, stream));
      const std::vector<bf16> replayed = layer.out.download();
      Routes expected(rows, spec);
      route_experts_reference(logits.data(), rows, spec, expected.view());
      check_routes(layer.routes, expected, "a graph, " + named(spec, rows));
      layer.out.poison();
      layer.run(stream);
      check_same(replayed, layer.out.download(), "a graph, " + named(spec, rows));
      const auto equal = [](bf16 a, bf16 b) { return a.bits == b.bits; };
      CHECK(!std::equal(replayed.begin(), replayed.end(), before.begin(), before.end(), equal));
      before = replayed;
    }
    CUDA_CHECK(cudaGraphExecDestroy(replay));
    CUDA_CHECK(cudaGraphDestroy(graph));
  }
  CUDA_CHECK(cudaStreamDestroy(stream));
}

}  // namespace

extern const TestTable kCudaMoeTests = {"cuda moe",
                                        {{"routes equal reference", routes_equal_reference},
                                         {"experts equal reference", experts_equal_reference},
                                         {"a small case of every kernel", small_case},
                                         {"large shapes equal the chain of mma.sync", large_shapes_equal_mma_chain},
                                         {"ragged outputs are refused", ragged_outputs_are_refused},
                                         {"a graph follows its logits", a_graph_follows_its_logits}}};

}  // namespace detinfer::testing
