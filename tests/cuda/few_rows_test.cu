// An expert layer for few rows on a GPU against the references and, on a large shape, against a chain of mma.sync: every
// bit of the activations and of the combination, in launches and in a replayed graph.
#include <algorithm>
#include <string>

#include "core/cuda_check.h"
#include "kernels/linear/linear_cuda.h"
#include "kernels/mlp/swiglu.h"
#include "kernels/moe/few_rows.h"
#include "tests/cuda/device_buffer.h"
#include "tests/cuda/fill.cuh"
#include "tests/cuda/mma_chain.cuh"
#include "tests/native/check.h"
#include "tests/native/operands.h"
#include "tests/native/routes.h"

namespace detinfer::testing {
namespace {

struct Shape {
  RouteSpec spec;
  int rows;
  int hidden;
  int intermediate;
};

std::string to_text(const Shape& s) {
  return std::to_string(s.spec.top_k) + " of " + std::to_string(s.spec.experts) + ", " + std::to_string(s.rows) +
         " rows, " + std::to_string(s.hidden) + " x " + std::to_string(s.intermediate);
}

/// SwiGLU of one row whose gates and ups alternate in groups of 8.
void activate(const bf16* gate_up, int n, bf16* y) {
  std::vector<bf16> apart(size_t(2) * n);
  for (int i = 0; i < n; ++i) {
    apart[i] = gate_up[i / 8 * 16 + i % 8];
    apart[n + i] = gate_up[i / 8 * 16 + 8 + i % 8];
  }
  swiglu_reference(apart.data(), 1, n, y);
}

/// Values on the device, behind them NaNs.
struct Guarded : DeviceBuffer<bf16> {
  explicit Guarded(std::vector<bf16> values) : DeviceBuffer<bf16>(with_nans(std::move(values))) {}
  static std::vector<bf16> with_nans(std::vector<bf16> values) {
    values.resize(values.size() + 65536, bf16{0x7FC1});
    return values;
  }
};

/// What is behind the outputs must stay as it is.
constexpr size_t kGuard = 4096;

void check_written(const DeviceBuffer<bf16>& actual, const std::vector<bf16>& expected, const std::string& what) {
  const std::vector<bf16> values = actual.download();
  for (size_t i = 0; i < values.size(); ++i) {
    // The poison is a NaN of other bits than any result's.
    const bool written = values[i].bits != 0xFFFF;
    CHECK_MESSAGE(written == (i < expected.size()), what << ": element " << i << " of " << expected.size());
    CHECK_MESSAGE(!written || same(values[i], expected[i]), what << ": element " << i << " of " << expected.size());
  }
}

void compare(const Shape& s, Operands kind, RouterLogits logits_kind, std::mt19937_64& random) {
  const auto& [spec, rows, hidden, n] = s;
  const size_t entries = size_t(rows) * spec.top_k;
  const auto logits = draw_logits(logits_kind, rows, spec, random);
  const auto x = draw(kind, size_t(rows) * hidden, random);
  const auto gate_up = draw(kind, size_t(spec.experts) * 2 * n * hidden, random);
  const auto down = draw(kind, size_t(spec.experts) * hidden * n, random);

  Routes routes(rows, spec);
  route_experts_reference(logits.data(), rows, spec, routes.view());
  std::vector<bf16> both(entries * 2 * n), activated(entries * n), ranked(activated.size()), y(entries * hidden);
  std::vector<bf16> out(size_t(rows) * hidden);
  expert_linear_reference(x.data(), rows, spec, routes.view(), true, gate_up.data(), 2 * n, hidden, both.data());
  for (size_t i = 0; i < entries; ++i) activate(&both[i * 2 * n], n, &activated[i * n]);
  for (size_t i = 0; i < entries; ++i) std::copy_n(&activated[size_t(routes.place[i]) * n], n, &ranked[i * n]);
  expert_linear_reference(activated.data(), rows, spec, routes.view(), false, down.data(), hidden, n, y.data());
  combine_experts_reference(y.data(), rows, hidden, spec, routes.view(), out.data());

  const std::string what =
      to_text(s) + ", operands " + std::to_string(int(kind)) + ", logits " + std::to_string(int(logits_kind));
  const Guarded x_device(x), gate_up_device(gate_up), down_device(down);
  const DeviceBuffer<float> logits_device(logits);
  DeviceBuffer<bf16> activated_device(ranked.size() + kGuard), out_device(out.size() + kGuard);
  activated_device.poison();
  out_device.poison();
  few_rows_gate_up_cuda(x_device.data(), logits_device.data(), rows, spec,
                        {gate_up_device.data(), spec.experts * 2 * n, hidden}, activated_device.data(), nullptr);
  few_rows_down_cuda(activated_device.data(), logits_device.data(), rows, spec,
                     {down_device.data(), spec.experts * hidden, n}, out_device.data(), nullptr);
  check_written(activated_device, ranked, what + ": activations");
  check_written(out_device, out, what + ": combination");
}

void layers_equal_reference() {
  std::mt19937_64 random(51);
  for (Operands kind : kAllOperands) {
    compare({{8, 2, true}, 2, 64, 32}, kind, RouterLogits::kNormal, random);
    compare({{16, 4, false}, 1, 88, 24}, kind, RouterLogits::kNormal, random);
  }
  for (RouterLogits logits : kAllRouterLogits) {
    compare({{128, 8, true}, 4, 48, 16}, Operands::kNormal, logits, random);
    compare({{60, 4, false}, 3, 40, 72}, Operands::kSpread, logits, random);
    compare({{160, 6, true}, 5, 16, 200}, Operands::kNormal, logits, random);
    compare({{512, 32, false}, 2, 24, 40}, Operands::kNormal, logits, random);
    compare({{11, 10, true}, 1, 136, 8}, Operands::kAnyBits, logits, random);
    compare({{1, 1, true}, 3, 8, 64}, Operands::kNormal, logits, random);
  }
}

/// What scripts/sanitize.mjs runs: both kernels, for 128 experts at most and for more.
void small_case() {
  std::mt19937_64 random(54);
  compare({{16, 4, true}, 2, 88, 24}, Operands::kNormal, RouterLogits::kNormal, random);
  compare({{160, 9, true}, 1, 24, 16}, Operands::kNormal, RouterLogits::kNormal, random);
}

/// Rows enough that thread blocks go around, on a chain of many stages.
void large_shape_equals_mma_chain() {
  std::mt19937_64 random(52);
  const RouteSpec spec{128, 8, true};
  const int hidden = 2048, n = 768;
  DeviceBuffer<bf16> gate_up(size_t(spec.experts) * 2 * n * hidden), down(size_t(spec.experts) * hidden * n);
  fill<<<1024, 256>>>(gate_up.data(), gate_up.size(), 1, 121);
  fill<<<1024, 256>>>(down.data(), down.size(), 2, 121);
  DeviceBuffer<float> sums(std::max(2 * n, hidden));
  const auto product = [&](const bf16* x, const bf16* w, int count, int k) {
    launch_mma_chain(x, 1, w, count, k, nullptr, sums.data(), nullptr);
    const std::vector<float> values = sums.download();
    std::vector<bf16> rounded(count);
    std::transform(values.begin(), values.begin() + count, rounded.begin(), to_bf16);
    return rounded;
  };
  for (int rows : {1, 2, 4}) {
    const std::string what = to_text({spec, rows, hidden, n});
    const auto logits = draw_logits(RouterLogits::kNormal, rows, spec, random);
    Routes routes(rows, spec);
    route_experts_reference(logits.data(), rows, spec, routes.view());
    DeviceBuffer<bf16> x(size_t(rows) * hidden);
    fill<<<1024, 256>>>(x.data(), x.size(), 3 + rows, 127);
    std::vector<bf16> activated, out;
    for (int row = 0; row < rows; ++row) {
      std::vector<float> acc(hidden, 0.0f);
      for (int rank = 0; rank < spec.top_k; ++rank) {
        const int64_t at = row * spec.top_k + rank, expert = routes.experts[at];
        std::vector<bf16> hidden_of(n);
        const auto both =
            product(x.data() + int64_t(row) * hidden, gate_up.data() + expert * 2 * n * hidden, 2 * n, hidden);
        activate(both.data(), n, hidden_of.data());
        const auto y = product(DeviceBuffer<bf16>(hidden_of).data(), down.data() + expert * hidden * n, hidden, n);
        for (int i = 0; i < hidden; ++i) acc[i] = std::fma(routes.weights[at], to_float(y[i]), acc[i]);
        activated.insert(activated.end(), hidden_of.begin(), hidden_of.end());
      }
      std::transform(acc.begin(), acc.end(), std::back_inserter(out), to_bf16);
    }
    const DeviceBuffer<float> logits_device(logits);
    DeviceBuffer<bf16> activated_device(activated.size() + kGuard), out_device(out.size() + kGuard);
    activated_device.poison();
    out_device.poison();
    few_rows_gate_up_cuda(x.data(), logits_device.data(), rows, spec, {gate_up.data(), spec.experts * 2 * n, hidden},
                          activated_device.data(), nullptr);
    few_rows_down_cuda(activated_device.data(), logits_device.data(), rows, spec,
                       {down.data(), spec.experts * hidden, n}, out_device.data(), nullptr);
    check_written(activated_device, activated, what + ": activations");
    check_written(out_device, out, what + ": combination");
  }
}

/// A chain of layers, whose logits are products of the outputs before, is recorded and replayed for inputs that it was
/// not recorded with, and equals the same launches one at a time.
void a_graph_follows_its_inputs() {
  std::mt19937_64 random(53);
  cudaStream_t stream;
  CUDA_CHECK(cudaStreamCreate(&stream));
  const RouteSpec spec{128, 8, true};
  const int hidden = 512, n = 256, layers = 6;
  DeviceBuffer<bf16> router(size_t(spec.experts) * hidden), gate_up(size_t(spec.experts) * 2 * n * hidden),
      down(size_t(spec.experts) * hidden * n);
  fill<<<1024, 256>>>(router.data(), router.size(), 1, 123);
  fill<<<1024, 256>>>(gate_up.data(), gate_up.size(), 2, 123);
  fill<<<1024, 256>>>(down.data(), down.size(), 3, 124);
  for (int rows : {1, 3}) {
    DeviceBuffer<bf16> x(size_t(rows) * hidden), activated(size_t(rows) * spec.top_k * n), out(x.size());
    DeviceBuffer<float> logits(size_t(rows) * spec.experts);
    const auto run = [&](bool wait) {
      const bf16* from = x.data();
      const auto launched = [&] {
        if (wait) CUDA_CHECK(cudaStreamSynchronize(stream));
      };
      for (int i = 0; i < layers; ++i) {
        linear_cuda(from, rows, {router.data(), spec.experts, hidden}, nullptr, logits.data(), stream);
        launched();
        few_rows_gate_up_cuda(from, logits.data(), rows, spec, {gate_up.data(), spec.experts * 2 * n, hidden},
                              activated.data(), stream);
        launched();
        few_rows_down_cuda(activated.data(), logits.data(), rows, spec, {down.data(), spec.experts * hidden, n},
                           out.data(), stream);
        launched();
        from = out.data();
      }
    };
    cudaGraph_t graph;
    cudaGraphExec_t replay;
    CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    run(false);
    CUDA_CHECK(cudaStreamEndCapture(stream, &graph));
    CUDA_CHECK(cudaGraphInstantiate(&replay, graph, 0));
    std::vector<bf16> before;
    for (uint64_t seed = 0; seed < 20; ++seed) {
      fill<<<64, 256>>>(x.data(), x.size(), seed, 127);
      logits.poison();
      activated.poison();
      out.poison();
      CUDA_CHECK(cudaDeviceSynchronize());
      CUDA_CHECK(cudaGraphLaunch(replay, stream));
      const std::vector<bf16> replayed = out.download();
      run(true);
      check_same(replayed, out.download(), "a graph of " + std::to_string(rows) + " rows");
      const auto equal = [](bf16 a, bf16 b) { return a.bits == b.bits; };
      CHECK(!std::equal(replayed.begin(), replayed.end(), before.begin(), before.end(), equal));
      CHECK(std::all_of(replayed.begin(), replayed.end(), [](bf16 value) { return std::isfinite(to_float(value)); }));
      before = replayed;
    }
    CUDA_CHECK(cudaGraphExecDestroy(replay));
    CUDA_CHECK(cudaGraphDestroy(graph));
  }
  CUDA_CHECK(cudaStreamDestroy(stream));
}

}  // namespace

extern const TestTable kCudaFewRowsTests = {
    "cuda moe, few rows",
    {{"layers equal reference", layers_equal_reference},
     {"a small case of every kernel", small_case},
     {"a large shape equals the chain of mma.sync", large_shape_equals_mma_chain},
     {"a graph follows its inputs", a_graph_follows_its_inputs}}};

}  // namespace detinfer::testing
