// detinfer_bench: what the CPU kernels reach, next to what this machine can do.
//   bandwidth [--threads N]   bytes per second that N threads read
//   kernels   [--threads N]   linear, experts and attention on every instruction set
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "device/cpu_bandwidth.h"
#include "core/timing.h"
#include "core/cpu_isa.h"
#include "core/thread_pool.h"
#include "kernels/attention/attention.h"
#include "kernels/linear/linear.h"
#include "kernels/moe/moe.h"

namespace detinfer {
namespace {

std::vector<bf16> normal_values(size_t count, float scale, std::mt19937_64& random) {
  std::normal_distribution<float> normal;
  std::vector<bf16> values(count);
  for (bf16& value : values) value = to_bf16(normal(random) * scale);
  return values;
}

void bench_linear(ThreadPool& pool, double bandwidth) {
  // gate_up of a model of Qwen3-0.6B's shape, several copies so that no cache holds the weights of a pass.
  constexpr int kN = 6144, kK = 1024, kCopies = 8;
  std::mt19937_64 random(1);
  std::vector<PackedMatrix> weights;
  for (int i = 0; i < kCopies; ++i) {
    weights.push_back(pack_matrix(pool, normal_values(size_t(kN) * kK, 0.03f, random).data(), kN, kK));
  }
  std::printf("\nlinear %d x %d, %d copies in turn\n", kN, kK, kCopies);
  std::printf("%6s %8s %12s %18s %14s\n", "rows", "isa", "GMAC/s", "per thread", "of bandwidth");
  for (int rows : {1, 2, 4, 16, 64, 256}) {
    const std::vector<bf16> x = normal_values(size_t(rows) * kK, 1.0f, random);
    std::vector<bf16> y(size_t(rows) * kN);
    for (CpuIsa isa : {CpuIsa::kAvx512, CpuIsa::kAvx2, CpuIsa::kPortable}) {
      if (!cpu_has(isa)) continue;
      set_cpu_isa(isa);
      const double seconds = best_seconds(rows > 16 ? 2 : 5, [&] {
        for (const PackedMatrix& w : weights) linear_cpu(pool, x.data(), rows, w, nullptr, y.data());
      });
      const double rate = double(kN) * kK * kCopies * rows / seconds;
      std::printf("%6d %8s %12.2f %18.2f %13.0f%%\n", rows, cpu_isa_name(isa), rate / 1e9, rate / 1e9 / pool.threads(),
                  100.0 * double(kN) * kK * kCopies * 2 / seconds / bandwidth);
    }
  }
}

/// Arrays for the routes of one pass.
struct Routes {
  Routes(int rows, const RouteSpec& spec)
      : experts(size_t(rows) * spec.top_k), first(size_t(spec.experts) + 1), row(experts), place(experts),
        weights(experts.size()) {}
  ExpertRoutes view() { return {experts.data(), weights.data(), first.data(), row.data(), place.data()}; }

  std::vector<int32_t> experts, first, row, place;
  std::vector<float> weights;
};

void bench_experts(ThreadPool& pool, double bandwidth) {
  // Gate and up of experts of Qwen3-30B-A3B's shape, a quarter of them. Passes choose at random, so that the weights of
  // the few that a row reads lie in no cache.
  constexpr int kN = 1536, kK = 2048, kPasses = 8;
  constexpr RouteSpec kSpec{32, 8, true};
  std::mt19937_64 random(3);
  const auto block = normal_values(size_t(kN) * kK, 0.02f, random);
  std::vector<bf16> matrices;
  for (int i = 0; i < kSpec.experts; ++i) matrices.insert(matrices.end(), block.begin(), block.end());
  const PackedMatrix weights = pack_matrix(pool, matrices.data(), kSpec.experts * kN, kK);
  std::printf("\nexperts %d x %d, %d of %d\n", kN, kK, kSpec.top_k, kSpec.experts);
  std::printf("%6s %8s %12s %18s %14s\n", "rows", "isa", "GMAC/s", "per thread", "of bandwidth");
  std::normal_distribution<float> normal;
  for (int rows : {1, 4, 16, 64}) {
    const std::vector<bf16> x = normal_values(size_t(rows) * kK, 1.0f, random);
    std::vector<bf16> y(size_t(rows) * kSpec.top_k * kN);
    std::vector<Routes> passes(kPasses, Routes(rows, kSpec));
    double experts_read = 0.0;
    for (Routes& routes : passes) {
      std::vector<float> logits(size_t(rows) * kSpec.experts);
      for (float& logit : logits) logit = normal(random);
      route_experts_cpu(pool, logits.data(), rows, kSpec, routes.view());
      for (int e = 0; e < kSpec.experts; ++e) experts_read += routes.first[e + 1] > routes.first[e];
    }
    for (CpuIsa isa : {CpuIsa::kAvx512, CpuIsa::kAvx2, CpuIsa::kPortable}) {
      if (!cpu_has(isa)) continue;
      set_cpu_isa(isa);
      const double seconds = best_seconds(rows > 16 ? 2 : 5, [&] {
        for (Routes& routes : passes) {
          expert_linear_cpu(pool, x.data(), rows, kSpec, routes.view(), true, weights, y.data());
        }
      });
      const double rate = double(kN) * kK * rows * kSpec.top_k * kPasses / seconds;
      std::printf("%6d %8s %12.2f %18.2f %13.0f%%\n", rows, cpu_isa_name(isa), rate / 1e9, rate / 1e9 / pool.threads(),
                  100.0 * double(kN) * kK * experts_read * 2 / seconds / bandwidth);
    }
  }
}

void bench_attention(ThreadPool& pool) {
  constexpr int kHeads = 16, kKvHeads = 8, kDim = 128, kPage = 16, kLength = 2048;
  std::mt19937_64 random(2);
  const KvLayout layout{kKvHeads, kDim, kPage};
  std::vector<int32_t> pages(kLength / kPage);
  std::iota(pages.begin(), pages.end(), 0);
  const auto keys = normal_values(pages.size() * layout.page_elements(), 1.0f, random);
  const auto values = normal_values(pages.size() * layout.page_elements(), 1.0f, random);
  std::printf("\nattention, %d query and %d KV heads of %d\n", kHeads, kKvHeads, kDim);
  std::printf("%8s %8s %8s %12s %18s\n", "queries", "keys", "isa", "GMAC/s", "per thread");
  for (int rows : {1, 256}) {
    for (int length : {256, kLength}) {
      const auto q = normal_values(size_t(rows) * kHeads * kDim, 1.0f, random);
      std::vector<bf16> out(q.size());
      const AttentionSlice slice{0, rows, length - rows, pages.data()};
      double work = 0;
      for (int i = 0; i < rows; ++i) work += 2.0 * kHeads * kDim * (length - rows + i + 1);
      for (CpuIsa isa : {CpuIsa::kAvx512, CpuIsa::kAvx2, CpuIsa::kPortable}) {
        if (!cpu_has(isa)) continue;
        set_cpu_isa(isa);
        const double seconds = best_seconds(rows > 1 ? 2 : 20, [&] {
          attention_cpu(pool, q.data(), kHeads, keys.data(), values.data(), layout, &slice, 1, out.data());
        });
        std::printf("%8d %8d %8s %12.2f %18.2f\n", rows, length, cpu_isa_name(isa), work / seconds / 1e9,
                    work / seconds / 1e9 / pool.threads());
      }
    }
  }
}

int usage() {
  std::fprintf(stderr, "usage: detinfer_bench bandwidth|kernels [--threads N]\n");
  return 2;
}

int run(int argc, char** argv) {
  if (argc < 2) return usage();
  const std::string command = argv[1];
  int threads = int(std::thread::hardware_concurrency());
  for (int i = 2; i < argc; ++i) {
    if (std::strcmp(argv[i], "--threads") == 0 && i + 1 < argc) {
      threads = std::atoi(argv[++i]);
    } else {
      return usage();
    }
  }
  if (threads < 1 || (command != "bandwidth" && command != "kernels")) return usage();
  ThreadPool pool(threads);
  const double bandwidth = read_bandwidth(pool);
  std::printf("%d threads read %.1f GB/s\n", threads, bandwidth / 1e9);
  if (command == "kernels") {
    bench_linear(pool, bandwidth);
    bench_experts(pool, bandwidth);
    bench_attention(pool);
  }
  return 0;
}

}  // namespace
}  // namespace detinfer

int main(int argc, char** argv) {
  try {
    return detinfer::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "detinfer_bench: %s\n", error.what());
    return 2;
  }
}
