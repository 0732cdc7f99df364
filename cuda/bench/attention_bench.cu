// Every backend of attention: TFLOP/s of causal prefill, TB/s of decoding, and its time against fa3 on the same data.
#include <algorithm>
#include <cstdio>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "attention/backend.h"
#include "bench/attention_bench.h"
#include "bench/gpu_timing.cuh"

namespace detinfer {
namespace {

constexpr int kHeads = 32, kKvHeads = 8, kDim = 128;

/// A batch of equal sequences with shuffled pages, in pools that several copies of keep the cache cold.
struct Batch {
  Batch(int sequences, int length, int rows, int page_size, int copies)
      : kv{kKvHeads, kDim, page_size},
        pages_per_sequence((length + page_size - 1) / page_size),
        page_count(int64_t(sequences) * pages_per_sequence),
        pages(page_count),
        q(size_t(sequences) * rows * kHeads * kDim, 1),
        out(q.count(), 2),
        keys(size_t(copies) * page_count * kv.page_elements(), 3),
        values(keys.count(), 4) {
    std::iota(pages.begin(), pages.end(), 0);
    std::shuffle(pages.begin(), pages.end(), std::mt19937(1));
    AttentionLimits limits;
    limits.slices = sequences;
    limits.rows = sequences * rows;
    limits.pages_per_slice = pages_per_sequence;
    limits.decode_splits = sequences * ((length + kSplitKeys - 1) / kSplitKeys);
    std::vector<AttentionSlice> slices;
    for (int i = 0; i < sequences; ++i) {
      slices.push_back({i * rows, rows, length - rows, &pages[size_t(i) * pages_per_sequence]});
    }
    for (const std::string& name : attention_backend_names()) {
      backends.push_back(make_attention_backend(name, kv, kHeads, page_count, limits));
      backends.back()->plan(slices.data(), sequences, nullptr);
    }
    CUDA_CHECK(cudaDeviceSynchronize());
  }

  /// Times of every backend, whose replays alternate. @param launches of a graph, over as many of `copies` as there are
  std::vector<Times> time(int launches, int replays, int copies) const {
    std::vector<std::unique_ptr<TimedGraph>> graphs;
    std::vector<TimedGraph*> turns;
    for (const auto& backend : backends) {
      graphs.push_back(std::make_unique<TimedGraph>(launches, Overlap::kDependentLaunch, [&](int i, cudaStream_t stream) {
        const size_t at = size_t(i % copies) * page_count * kv.page_elements();
        backend->attend(q.data(), keys.data() + at, values.data() + at, out.data(), stream);
      }));
      turns.push_back(graphs.back().get());
    }
    replay_in_turn(turns, replays);
    std::vector<Times> times;
    for (const TimedGraph* graph : turns) times.push_back(graph->times());
    return times;
  }

  PagedKvLayout kv;
  int pages_per_sequence;
  int64_t page_count;
  std::vector<int32_t> pages;
  Values q, out, keys, values;
  std::vector<std::unique_ptr<AttentionBackend>> backends;
};

}  // namespace

void bench_decode_cuda() {
  std::printf("\ndecode, %d/%d heads of %d, one graph of 16 launches, keys and values rotated\n", kHeads, kKvHeads, kDim);
  std::printf("%9s %7s %6s %10s %10s %22s %8s %8s\n", "sequences", "keys", "page", "backend", "us", "(least, most)", "TB/s",
              "to fa3");
  const int shapes[][2] = {{1, 512},  {1, 1024},  {8, 512},    {8, 1024},   {1, 4096},
                           {1, 32768}, {8, 4096}, {64, 4096}, {256, 1024}, {256, 2000}};
  for (const auto& [sequences, length] : shapes) {
    for (int page_size : {16, 128}) {
      const double bytes = double(sequences) * length * kKvHeads * kDim * 4;
      const int copies = int(std::clamp(300e6 / bytes + 1, 1.0, 16.0));
      const std::vector<Times> times = Batch(sequences, length, 1, page_size, copies).time(16, 15, copies);
      for (size_t i = 0; i < times.size(); ++i) {
        const Times& t = times[i];
        std::printf("%9d %7d %6d %10s %10.1f %10.1f, %10.1f %8.2f %8.2f\n", sequences, length, page_size,
                    attention_backend_names()[i].c_str(), t.median * 1e6, t.least * 1e6, t.most * 1e6,
                    bytes / t.median * 1e-12, t.median / times[0].median);
      }
    }
  }
}

void bench_prefill_cuda() {
  std::printf("\ncausal prefill, %d/%d heads of %d\n", kHeads, kKvHeads, kDim);
  std::printf("%9s %7s %7s %6s %10s %10s %20s %9s %8s\n", "sequences", "keys", "rows", "page", "backend", "ms",
              "(least, most)", "TFLOP/s", "to fa3");
  const int shapes[][3] = {{1, 8192, 8192}, {1, 16384, 16384}, {1, 2048, 2048}, {8, 1024, 1024}, {1, 16384, 2048},
                           {64, 1024, 64}};
  for (const auto& [sequences, length, rows] : shapes) {
    for (int page_size : {16, 128}) {
      double scores = 0;
      for (int i = 0; i < rows; ++i) scores += length - rows + i + 1;
      const double flop = scores * sequences * kHeads * kDim * 4;
      const std::vector<Times> times = Batch(sequences, length, rows, page_size, 1).time(1, 21, 1);
      for (size_t i = 0; i < times.size(); ++i) {
        const Times& t = times[i];
        std::printf("%9d %7d %7d %6d %10s %10.3f %9.3f, %9.3f %9.0f %8.2f\n", sequences, length, rows, page_size,
                    attention_backend_names()[i].c_str(), t.median * 1e3, t.least * 1e3, t.most * 1e3,
                    flop / t.median * 1e-12, t.median / times[0].median);
      }
    }
  }
}

}  // namespace detinfer
