// Norm, rope, SwiGLU and embedding: µs of a launch within a graph, next to the time that its bytes take.
#include "bench/ops_bench.h"

#include <algorithm>
#include <cstdio>

#include "bench/gpu_timing.cuh"
#include "kernels/embedding/embedding_cuda.h"
#include "kernels/norm/rms_norm_cuda.h"
#include "kernels/rope/rope_cuda.h"

namespace detinfer {
namespace {

constexpr int kHidden = 4096, kHeads = 32, kKvHeads = 8, kDim = 128, kVocab = 32768;
constexpr int kPositions = 16384, kPage = 128;
constexpr int kLaunches = 20;

template <class T>
class Indices {
 public:
  template <class Value>
  Indices(int count, const Value& value) {
    std::vector<T> host(count);
    for (int i = 0; i < count; ++i) host[i] = value(i);
    CUDA_CHECK(cudaMalloc(&data_, count * sizeof(T)));
    CUDA_CHECK(cudaMemcpy(data_, host.data(), count * sizeof(T), cudaMemcpyHostToDevice));
  }
  ~Indices() { cudaFree(data_); }
  Indices(const Indices&) = delete;
  Indices& operator=(const Indices&) = delete;
  const T* data() const { return data_; }

 private:
  T* data_ = nullptr;
};

/// @param elements of bf16 that one launch reads and writes @param launch gets the element where its copy begins
template <class Launch>
void row(const char* name, int rows, double elements, double bandwidth, const Launch& launch) {
  const Times t = time_graph(kLaunches, 15, launch);
  const double floor = elements * sizeof(bf16) / bandwidth;
  std::printf("%-14s %6d %9.2f %9.2f %9.2f %7.2f\n", name, rows, t.median * 1e6, t.least * 1e6, floor * 1e6,
              t.median / floor);
}

void bench_rows(int rows, double bandwidth) {
  constexpr int kQkv = (kHeads + 2 * kKvHeads) * kDim;
  // Copies that together are larger than the second-level cache, for many rows; a few rows are in the cache in a model, too.
  const int copies = rows < 1024 ? 1 : 3;
  const size_t hidden = size_t(rows) * kHidden, qkv = size_t(rows) * kQkv;
  const size_t pages = size_t(rows + kPage - 1) / kPage, pool = pages * kPage * kKvHeads * kDim;
  const Values x(hidden * copies, 1), delta(hidden * copies, 2), y(hidden * copies, 3), weight(kHidden, 4);
  const Values table(size_t(kVocab) * kHidden, 7);
  const Values heads(qkv * copies, 8), q(hidden * copies, 9), keys(pool * copies, 10), values(pool * copies, 11);
  const Values angles(size_t(kPositions) * kDim * 2, 12), head_norm(kDim, 13);
  const Indices<int32_t> ids(rows, [](int i) { return i * 7919 % kVocab; }), order(rows, [=](int i) { return rows - 1 - i; });
  const Indices<int32_t> positions(rows, [](int i) { return i % kPositions; });
  const Indices<int64_t> slots(rows, [](int i) { return i; });
  row("rms_norm", rows, 2.0 * hidden, bandwidth, [&](int i, cudaStream_t stream) {
    const size_t at = i % copies * hidden;
    rms_norm_cuda(x.data() + at, rows, kHidden, weight.data(), 1e-6f, y.data() + at, stream);
  });
  row("add_rms_norm", rows, 4.0 * hidden, bandwidth, [&](int i, cudaStream_t stream) {
    const size_t at = i % copies * hidden;
    add_rms_norm_cuda(x.data() + at, delta.data() + at, rows, kHidden, weight.data(), 1e-6f, y.data() + at, stream);
  });
  for (bool norm : {false, true}) {
    row(norm ? "rope with norm" : "rope", rows, 2.0 * qkv, bandwidth, [&](int i, cudaStream_t stream) {
      const size_t copy = i % copies;
      RopeArgs args;
      args.qkv = heads.data() + copy * qkv;
      args.rows = rows;
      args.heads = kHeads;
      args.positions = positions.data();
      args.cos = reinterpret_cast<const float*>(angles.data());
      args.sin = args.cos + size_t(kPositions) * kDim / 2;
      if (norm) args.q_norm = args.k_norm = head_norm.data();
      args.q = q.data() + copy * hidden;
      args.keys = keys.data() + copy * pool;
      args.values = values.data() + copy * pool;
      args.slots = slots.data();
      rope_cuda(args, {kKvHeads, kDim, kPage}, stream);
    });
  }
  row("embedding", rows, 2.0 * hidden, bandwidth, [&](int i, cudaStream_t stream) {
    embedding_cuda({table.data(), kVocab, kHidden}, ids.data(), rows, nullptr, y.data() + i % copies * hidden, stream);
  });
  row("gather_rows", rows, 2.0 * hidden, bandwidth, [&](int i, cudaStream_t stream) {
    const size_t at = i % copies * hidden;
    gather_rows_cuda(x.data() + at, order.data(), rows, kHidden, y.data() + at, stream);
  });
}

}  // namespace

void bench_ops_cuda(double bandwidth) {
  std::printf("\nsmall operations, hidden %d, %d/%d heads of %d; a graph of %d dependent launches\n", kHidden, kHeads,
              kKvHeads, kDim, kLaunches);
  std::printf("%-14s %6s %9s %9s %9s %7s\n", "operation", "rows", "us", "least", "floor", "ratio");
  for (int rows : {1, 64, 256, 8192}) bench_rows(rows, bandwidth);
}

}  // namespace detinfer
