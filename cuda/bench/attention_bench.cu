// fa3: TFLOP/s of causal prefill, TB/s of decoding, next to the bandwidth that this device reads with.
#include <algorithm>
#include <cstdio>
#include <numeric>
#include <random>
#include <vector>

#include "attention/fa3/fa3.h"
#include "bench/attention_bench.h"
#include "core/cuda_check.h"

namespace detinfer {
namespace {

constexpr int kHeads = 32, kKvHeads = 8, kDim = 128;

__device__ uint32_t mix(uint64_t x) {
  x ^= x >> 33;
  x *= 0xff51afd7ed558ccdull;
  x ^= x >> 33;
  x *= 0xc4ceb9fe1a85ec53ull;
  return uint32_t(x ^ (x >> 33));
}

/// Normal values: on zeros the card runs faster than on a model's data.
__global__ void fill_normal(bf16* values, size_t count, uint64_t seed) {
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

class Values {
 public:
  Values(size_t count, uint64_t seed) : count_(count) {
    CUDA_CHECK(cudaMalloc(&data_, count * sizeof(bf16)));
    fill_normal<<<1024, 256>>>(data_, count, seed);
    CUDA_CHECK(cudaGetLastError());
    CUDA_CHECK(cudaDeviceSynchronize());
  }
  ~Values() { cudaFree(data_); }
  Values(const Values&) = delete;
  Values& operator=(const Values&) = delete;
  bf16* data() const { return data_; }
  size_t count() const { return count_; }

 private:
  bf16* data_ = nullptr;
  size_t count_;
};

struct Times {
  double median, least, most;
};

/// Seconds of one launch, from replays of a graph of `launches`; launch(i, stream) makes the i-th.
template <class Launch>
Times time_graph(int launches, int replays, const Launch& launch) {
  cudaStream_t stream;
  cudaGraph_t graph;
  cudaGraphExec_t replay;
  cudaEvent_t start, end;
  CUDA_CHECK(cudaStreamCreate(&stream));
  CUDA_CHECK(cudaEventCreate(&start));
  CUDA_CHECK(cudaEventCreate(&end));
  CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  for (int i = 0; i < launches; ++i) launch(i, stream);
  CUDA_CHECK(cudaStreamEndCapture(stream, &graph));
  CUDA_CHECK(cudaGraphInstantiate(&replay, graph, 0));
  std::vector<double> seconds;
  for (int r = -2; r < replays; ++r) {
    CUDA_CHECK(cudaEventRecord(start, stream));
    CUDA_CHECK(cudaGraphLaunch(replay, stream));
    CUDA_CHECK(cudaEventRecord(end, stream));
    CUDA_CHECK(cudaEventSynchronize(end));
    float ms;
    CUDA_CHECK(cudaEventElapsedTime(&ms, start, end));
    if (r >= 0) seconds.push_back(ms * 1e-3 / launches);
  }
  std::sort(seconds.begin(), seconds.end());
  CUDA_CHECK(cudaEventDestroy(start));
  CUDA_CHECK(cudaEventDestroy(end));
  CUDA_CHECK(cudaGraphExecDestroy(replay));
  CUDA_CHECK(cudaGraphDestroy(graph));
  CUDA_CHECK(cudaStreamDestroy(stream));
  return {seconds[seconds.size() / 2], seconds.front(), seconds.back()};
}

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
    attention = std::make_unique<Fa3Attention>(kv, kHeads, page_count, limits);
    std::vector<AttentionSlice> slices;
    for (int i = 0; i < sequences; ++i) {
      slices.push_back({i * rows, rows, length - rows, &pages[size_t(i) * pages_per_sequence]});
    }
    attention->plan(slices.data(), sequences, nullptr);
    CUDA_CHECK(cudaDeviceSynchronize());
  }

  void run(int copy, cudaStream_t stream) const {
    const size_t at = size_t(copy) * page_count * kv.page_elements();
    attention->run(q.data(), keys.data() + at, values.data() + at, out.data(), stream);
  }

  PagedKvLayout kv;
  int pages_per_sequence;
  int64_t page_count;
  std::vector<int32_t> pages;
  Values q, out, keys, values;
  std::unique_ptr<Fa3Attention> attention;
};

void bench_bandwidth() {
  const Values data(size_t(2) << 30, 5);
  uint32_t* sink;
  CUDA_CHECK(cudaMalloc(&sink, 4));
  const Times t = time_graph(4, 5, [&](int, cudaStream_t stream) {
    read_all<<<2048, 512, 0, stream>>>(reinterpret_cast<const uint4*>(data.data()), data.count() / 8, sink);
  });
  CUDA_CHECK(cudaFree(sink));
  std::printf("reading memory: %.2f TB/s\n", double(data.count()) * 2 / t.median * 1e-12);
}

void bench_decode() {
  std::printf("\ndecode, %d/%d heads of %d, one graph of 16 launches, keys and values rotated\n", kHeads, kKvHeads, kDim);
  std::printf("%9s %7s %6s %10s %22s %8s\n", "sequences", "keys", "page", "us", "(least, most)", "TB/s");
  const int shapes[][2] = {{1, 4096}, {1, 32768}, {64, 4096}, {256, 1024}, {256, 2000}, {16, 512}};
  for (const auto& [sequences, length] : shapes) {
    for (int page_size : {16, 64, 128}) {
      const double bytes = double(sequences) * length * kKvHeads * kDim * 4;
      const int copies = int(std::clamp(600e6 / bytes + 1, 1.0, 8.0));
      const Batch batch(sequences, length, 1, page_size, copies);
      const Times t = time_graph(16, 15, [&](int i, cudaStream_t stream) { batch.run(i % copies, stream); });
      std::printf("%9d %7d %6d %10.1f %10.1f, %10.1f %8.2f\n", sequences, length, page_size, t.median * 1e6, t.least * 1e6,
                  t.most * 1e6, bytes / t.median * 1e-12);
    }
  }
}

void bench_prefill() {
  std::printf("\ncausal prefill, %d/%d heads of %d\n", kHeads, kKvHeads, kDim);
  std::printf("%9s %7s %7s %6s %10s %20s %9s\n", "sequences", "keys", "rows", "page", "ms", "(least, most)", "TFLOP/s");
  const int shapes[][3] = {{1, 8192, 8192}, {1, 16384, 16384}, {1, 2048, 2048}, {8, 1024, 1024}, {1, 16384, 2048},
                           {64, 1024, 64}};
  for (const auto& [sequences, length, rows] : shapes) {
    for (int page_size : {16, 64, 128}) {
      const Batch batch(sequences, length, rows, page_size, 1);
      double scores = 0;
      for (int i = 0; i < rows; ++i) scores += length - rows + i + 1;
      const double flop = scores * sequences * kHeads * kDim * 4;
      const Times t = time_graph(1, 21, [&](int, cudaStream_t stream) { batch.run(0, stream); });
      std::printf("%9d %7d %7d %6d %10.3f %9.3f, %9.3f %9.0f\n", sequences, length, rows, page_size, t.median * 1e3,
                  t.least * 1e3, t.most * 1e3, flop / t.median * 1e-12);
    }
  }
}

}  // namespace

void bench_attention_cuda() {
  bench_bandwidth();
  bench_decode();
  bench_prefill();
}

}  // namespace detinfer
