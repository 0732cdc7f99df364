// The operations between the matrix products (norm, rope, SwiGLU, embedding) against their readable references.
#include <algorithm>
#include <numeric>
#include <string>

#include "core/cuda_check.h"
#include "core/error.h"
#include "kernels/embedding/embedding.h"
#include "kernels/embedding/embedding_cuda.h"
#include "kernels/norm/rms_norm_cuda.h"
#include "kernels/rope/rope_cuda.h"
#include "kernels/rope/rope_table.h"
#include "tests/cuda/device_buffer.h"
#include "tests/cuda/pool.h"
#include "tests/native/check.h"
#include "tests/native/operands.h"

namespace detinfer::testing {
namespace {

constexpr bf16 kPoison{0xFFFF};
/// Elements behind an output, which must stay as they are.
constexpr size_t kGuard = 64;

class Output {
 public:
  explicit Output(size_t count) : count_(count), buffer_(count + kGuard) { buffer_.poison(); }
  bf16* data() { return buffer_.data(); }

  void check(const std::vector<bf16>& expected, const std::string& what) const {
    std::vector<bf16> actual = buffer_.download();
    for (size_t i = count_; i < actual.size(); ++i) {
      CHECK_MESSAGE(actual[i].bits == kPoison.bits, what << ": written behind its end, + " << i - count_);
    }
    actual.resize(count_);
    check_same(actual, expected, what);
  }

 private:
  size_t count_;
  DeviceBuffer<bf16> buffer_;
};

struct NormShape {
  int rows, n;
};

/// Lengths with ragged groups, trees and runs, and more rows than blocks.
constexpr NormShape kNormShapes[] = {{3, 2},    {3, 8},    {3, 14},   {5, 16},     {5, 100},   {5, 128},   {2, 1000},
                                     {1, 1024}, {3, 4096}, {3, 4098}, {2, 5120},   {2, 8192},  {2, 8200},  {2, 16382},
                                     {2, 20000}, {2, 32768}, {7000, 64}, {2000, 264}, {500, 4096}, {300, 5122}};

void norm_equals_reference() {
  std::mt19937_64 random(11);
  for (Operands kind : kAllOperands) {
    for (const auto& [rows, n] : kNormShapes) {
      if (rows > 5 && kind != Operands::kNormal) continue;
      const std::string what = std::to_string(rows) + " x " + std::to_string(n) + ", operands " + std::to_string(int(kind));
      const auto x = draw(kind, size_t(rows) * n, random), delta = draw(kind, x.size(), random);
      const auto w = draw(Operands::kNormal, n, random);
      std::vector<bf16> expected(x.size()), sum(x.size());
      rms_norm_reference(x.data(), rows, n, w.data(), 1e-6f, expected.data());
      const DeviceBuffer<bf16> device_x(x), device_delta(delta), device_w(w);
      Output y(x.size()), residual(x.size());
      rms_norm_cuda(device_x.data(), rows, n, device_w.data(), 1e-6f, y.data(), nullptr);
      y.check(expected, what);
      CUDA_CHECK(cudaMemcpy(residual.data(), x.data(), x.size() * sizeof(bf16), cudaMemcpyHostToDevice));
      rms_norm_cuda(residual.data(), rows, n, device_w.data(), 1e-6f, residual.data(), nullptr);
      residual.check(expected, what + ", in place");

      for (size_t i = 0; i < x.size(); ++i) sum[i] = to_bf16(to_float(x[i]) + to_float(delta[i]));
      rms_norm_reference(sum.data(), rows, n, w.data(), 1e-5f, expected.data());
      CUDA_CHECK(cudaMemcpy(residual.data(), x.data(), x.size() * sizeof(bf16), cudaMemcpyHostToDevice));
      add_rms_norm_cuda(residual.data(), device_delta.data(), rows, n, device_w.data(), 1e-5f, y.data(), nullptr);
      residual.check(sum, what + ", residual");
      y.check(expected, what + ", sum's norm");
    }
  }
}

/// Squares of which another order's sum has other bits: 1s that meet before they meet 2^24, and that don't.
void norm_sums_in_order() {
  for (int n : {16, 4096, 8192, 32768}) {
    for (int large : {0, 3, n / 2 + 7, n - 1}) {
      std::vector<bf16> x(n, to_bf16(1.0f)), w(n, to_bf16(1.0f)), expected(n);
      x[large] = to_bf16(4096.0f);
      rms_norm_reference(x.data(), 1, n, w.data(), 0.0f, expected.data());
      const DeviceBuffer<bf16> device_x(x), device_w(w);
      Output y(n);
      rms_norm_cuda(device_x.data(), 1, n, device_w.data(), 0.0f, y.data(), nullptr);
      y.check(expected, std::to_string(n) + ", the large one at " + std::to_string(large));
    }
  }
}

struct RopeCase {
  int rows, heads, kv_heads, head_dim, page_size;
  bool q_norm, k_norm;
};

/// What rope_reference wrote to the CPU's layout, in the GPU's; slots that nobody wrote are poison.
std::vector<bf16> in_pages(const std::vector<bf16>& from, bool keys, const KvLayout& cpu, const PagedKvLayout& gpu, int pages) {
  std::vector<bf16> to(size_t(pages) * gpu.page_elements());
  for (int page = 0; page < pages; ++page) {
    for (int h = 0; h < gpu.kv_heads; ++h) {
      for (int slot = 0; slot < gpu.page_size; ++slot) {
        for (int d = 0; d < gpu.head_dim; ++d) {
          const int64_t at = keys ? cpu.key_offset(page, h, slot, d) : cpu.value_offset(page, h, slot, d);
          to[gpu.offset(page, h, slot, d)] = from[at];
        }
      }
    }
  }
  return to;
}

/// One call's operands on the host and on the GPU.
struct RopeProblem {
  RopeProblem(const RopeCase& c, Operands kind, uint64_t seed) : shape(c) {
    std::mt19937_64 random(seed);
    const std::vector<double> frequencies = rope_frequencies(RopeSpec{}, c.head_dim);
    cos.resize(kPositions * frequencies.size());
    sin.resize(cos.size());
    fill_rope_tables(pool(), frequencies, kPositions, cos.data(), sin.data());
    pages = (c.rows + c.page_size - 1) / c.page_size + 2;
    std::vector<int64_t> all(size_t(pages) * c.page_size);
    std::iota(all.begin(), all.end(), 0);
    std::shuffle(all.begin(), all.end(), random);
    slots.assign(all.begin(), all.begin() + c.rows);
    for (int i = 0; i < c.rows; ++i) positions.push_back(int32_t(random() % kPositions));
    qkv = draw(kind, size_t(c.rows) * (c.heads + 2 * c.kv_heads) * c.head_dim, random);
    q_norm = draw(Operands::kNormal, c.head_dim, random);
    k_norm = draw(Operands::kNormal, c.head_dim, random);
  }

  /// @return q, keys, values, in the GPU's layout
  std::vector<std::vector<bf16>> reference() const {
    RopeArgs args;
    const KvLayout layout{shape.kv_heads, shape.head_dim, shape.page_size};
    const size_t pool_size = size_t(pages) * layout.page_elements();
    std::vector<bf16> q(size_t(shape.rows) * shape.heads * shape.head_dim), keys(pool_size, kPoison),
        values(pool_size, kPoison);
    args.qkv = qkv.data();
    args.rows = shape.rows;
    args.heads = shape.heads;
    args.positions = positions.data();
    args.cos = cos.data();
    args.sin = sin.data();
    args.q_norm = shape.q_norm ? q_norm.data() : nullptr;
    args.k_norm = shape.k_norm ? k_norm.data() : nullptr;
    args.eps = 1e-6f;
    args.q = q.data();
    args.keys = keys.data();
    args.values = values.data();
    args.layout = layout;
    args.slots = slots.data();
    rope_reference(args);
    const PagedKvLayout gpu{shape.kv_heads, shape.head_dim, shape.page_size};
    return {q, in_pages(keys, true, layout, gpu, pages), in_pages(values, false, layout, gpu, pages)};
  }

  static constexpr int kPositions = 300;
  RopeCase shape;
  int pages = 0;
  std::vector<float> cos, sin;
  std::vector<int64_t> slots;
  std::vector<int32_t> positions;
  std::vector<bf16> qkv, q_norm, k_norm;
};

class RopeOnGpu {
 public:
  explicit RopeOnGpu(const RopeProblem& p)
      : layout_{p.shape.kv_heads, p.shape.head_dim, p.shape.page_size},
        qkv_(p.qkv),
        q_norm_(p.q_norm),
        k_norm_(p.k_norm),
        cos_(p.cos),
        sin_(p.sin),
        positions_(p.positions),
        slots_(p.slots),
        q_(size_t(p.shape.rows) * p.shape.heads * p.shape.head_dim),
        keys_(size_t(p.pages) * layout_.page_elements()),
        values_(size_t(p.pages) * layout_.page_elements()) {
    args_.qkv = qkv_.data();
    args_.rows = p.shape.rows;
    args_.heads = p.shape.heads;
    args_.positions = positions_.data();
    args_.cos = cos_.data();
    args_.sin = sin_.data();
    args_.q_norm = p.shape.q_norm ? q_norm_.data() : nullptr;
    args_.k_norm = p.shape.k_norm ? k_norm_.data() : nullptr;
    args_.eps = 1e-6f;
    args_.q = q_.data();
    args_.keys = keys_.data();
    args_.values = values_.data();
    args_.slots = slots_.data();
  }

  void run(cudaStream_t stream) { rope_cuda(args_, layout_, stream); }
  /// Rotates other rows than the problem's own.
  void run(const bf16* qkv, cudaStream_t stream) {
    RopeArgs args = args_;
    args.qkv = qkv;
    rope_cuda(args, layout_, stream);
  }

  void check(const std::vector<std::vector<bf16>>& expected, const std::string& what) const {
    q_.check(expected[0], what + ", q");
    keys_.check(expected[1], what + ", keys");
    values_.check(expected[2], what + ", values");
  }

 private:
  PagedKvLayout layout_;
  DeviceBuffer<bf16> qkv_, q_norm_, k_norm_;
  DeviceBuffer<float> cos_, sin_;
  DeviceBuffer<int32_t> positions_;
  DeviceBuffer<int64_t> slots_;
  Output q_, keys_, values_;
  RopeArgs args_;
};

void rope_equals_reference() {
  const RopeCase cases[] = {{23, 4, 2, 128, 16, true, true},    {17, 6, 3, 64, 32, false, false},
                            {5, 1, 1, 16, 16, true, true},      {1, 32, 8, 128, 128, true, true},
                            {9, 5, 1, 80, 64, true, false},     {9, 4, 2, 96, 16, false, true},
                            {9, 4, 4, 112, 16, false, false},   {9, 3, 1, 256, 16, true, true},
                            {9, 2, 1, 144, 64, true, true},     {600, 14, 2, 64, 128, false, false},
                            {300, 32, 8, 128, 64, true, true},  {257, 3, 1, 240, 16, true, true},
                            {400, 40, 8, 32, 256, false, true}, {64, 64, 8, 128, 32, false, false}};
  for (const RopeCase& c : cases) {
    for (Operands kind : kAllOperands) {
      if (c.rows > 64 && kind != Operands::kNormal && kind != Operands::kAnyBits) continue;
      const RopeProblem problem(c, kind, 31);
      RopeOnGpu gpu(problem);
      gpu.run(nullptr);
      gpu.check(problem.reference(), std::to_string(c.rows) + " rows, " + std::to_string(c.heads) + "/" +
                                         std::to_string(c.kv_heads) + " heads of " + std::to_string(c.head_dim) +
                                         ", operands " + std::to_string(int(kind)));
    }
  }
}

void rows_are_copied() {
  std::mt19937_64 random(13);
  const int table_rows = 1000;
  for (int n : {8, 1024, 4096, 5128}) {
    for (int count : {1, 7, 64, 256, 257, 900}) {
      const std::string what = std::to_string(count) + " of " + std::to_string(n);
      const auto table = draw(Operands::kAnyBits, size_t(table_rows) * n, random);
      std::vector<int32_t> drawn(50), ids(count), rows(count);
      for (int32_t& token : drawn) token = int32_t(random() % table_rows);
      for (int i = 0; i < count; ++i) {
        const bool unknown = random() % 3 == 0;
        const int at = int(random() % drawn.size());
        rows[i] = unknown ? drawn[at] : int32_t(random() % table_rows);
        ids[i] = unknown ? -1 - at : rows[i];
      }
      std::vector<bf16> expected(size_t(count) * n);
      gather_rows(pool(), table.data(), rows.data(), count, n, expected.data());
      const DeviceBuffer<bf16> device_table(table);
      const DeviceBuffer<int32_t> device_drawn(drawn), device_ids(ids), device_rows(rows);
      Output y(expected.size()), picked(expected.size());
      embedding_cuda({device_table.data(), table_rows, n}, device_ids.data(), count, device_drawn.data(), y.data(), nullptr);
      y.check(expected, what);
      gather_rows_cuda(device_table.data(), device_rows.data(), count, n, picked.data(), nullptr);
      picked.check(expected, what + ", picked");
    }
  }
  const int n = 30, count = 300;
  const auto x = draw(Operands::kAnyBits, size_t(count) * n, random);
  std::vector<int32_t> rows(count);
  for (int32_t& row : rows) row = int32_t(random() % count);
  std::vector<bf16> expected(x.size());
  gather_rows(pool(), x.data(), rows.data(), count, n, expected.data());
  const DeviceBuffer<bf16> device_x(x);
  const DeviceBuffer<int32_t> device_rows(rows);
  Output picked(expected.size());
  gather_rows_cuda(device_x.data(), device_rows.data(), count, n, picked.data(), nullptr);
  picked.check(expected, "ragged rows, picked");
}

/// Launches that all start early and depend on each other, in a graph that is replayed: a kernel that reads or writes
/// before its inputs are there, or ends before them, shows here. `layers` times: norm, rope, pick, add and norm.
void chained_launches(int rows, int layers) {
  const RopeCase shape{rows, 8, 2, 128, 64, true, true};
  const int n = (shape.heads + 2 * shape.kv_heads) * shape.head_dim;
  RopeProblem problem(shape, Operands::kNormal, 14);
  std::mt19937_64 random(15);
  const auto table = draw(Operands::kNormal, size_t(256) * n, random), w = draw(Operands::kNormal, n, random);
  std::vector<int32_t> ids(rows), known(rows), drawn(rows), order(rows);
  for (int i = 0; i < rows; ++i) {
    drawn[i] = known[i] = int32_t(random() % 256);
    ids[i] = i % 2 ? -1 - i : known[i];
    order[i] = rows - 1 - i;
  }

  std::vector<bf16> h(size_t(rows) * n), y(h.size()), delta(h.size());
  std::vector<std::vector<bf16>> rotated;
  gather_rows(pool(), table.data(), known.data(), rows, n, h.data());
  rms_norm_reference(h.data(), rows, n, w.data(), 1e-6f, y.data());
  for (int layer = 0; layer < layers; ++layer) {
    problem.qkv = y;
    rotated = problem.reference();
    gather_rows(pool(), y.data(), order.data(), rows, n, delta.data());
    add_rms_norm_cpu(pool(), h.data(), delta.data(), rows, n, w.data(), 1e-6f, y.data());
  }

  const DeviceBuffer<bf16> device_table(table), device_w(w);
  const DeviceBuffer<int32_t> device_ids(ids), device_drawn(drawn), device_order(order);
  Output device_h(h.size()), device_y(y.size()), device_delta(h.size());
  RopeOnGpu rope(problem);
  cudaStream_t stream;
  cudaGraph_t graph;
  cudaGraphExec_t replay;
  CUDA_CHECK(cudaStreamCreate(&stream));
  CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  embedding_cuda({device_table.data(), 256, n}, device_ids.data(), rows, device_drawn.data(), device_h.data(), stream);
  rms_norm_cuda(device_h.data(), rows, n, device_w.data(), 1e-6f, device_y.data(), stream);
  for (int layer = 0; layer < layers; ++layer) {
    rope.run(device_y.data(), stream);
    gather_rows_cuda(device_y.data(), device_order.data(), rows, n, device_delta.data(), stream);
    add_rms_norm_cuda(device_h.data(), device_delta.data(), rows, n, device_w.data(), 1e-6f, device_y.data(), stream);
  }
  CUDA_CHECK(cudaStreamEndCapture(stream, &graph));
  CUDA_CHECK(cudaGraphInstantiate(&replay, graph, 0));
  for (int round = 0; round < 20; ++round) {
    // Several replays at once: the first kernel of one must wait for the last of the one before.
    for (int i = 0; i < 5; ++i) CUDA_CHECK(cudaGraphLaunch(replay, stream));
    CUDA_CHECK(cudaStreamSynchronize(stream));
    const std::string what = std::to_string(rows) + " rows, round " + std::to_string(round);
    device_h.check(h, what + ", residual");
    device_y.check(y, what + ", norm");
    rope.check(rotated, what);
  }
  CUDA_CHECK(cudaGraphExecDestroy(replay));
  CUDA_CHECK(cudaGraphDestroy(graph));
  CUDA_CHECK(cudaStreamDestroy(stream));
}

void chains_in_a_graph() {
  for (int rows : {1, 3, 64, 700}) chained_launches(rows, rows > 64 ? 3 : 24);
}

/// What scripts/sanitize.mjs runs.
void small_case() { chained_launches(3, 2); }

void refusals() {
  CHECK(MESSAGE_OF(Error, rms_norm_cuda(nullptr, 1, 7, nullptr, 0.0f, nullptr, nullptr)).find("not 7") != std::string::npos);
  CHECK(MESSAGE_OF(Error, rms_norm_cuda(nullptr, 1, 32770, nullptr, 0.0f, nullptr, nullptr)).find("not 32770") !=
        std::string::npos);
  CHECK(MESSAGE_OF(Error, rope_cuda(RopeArgs{}, {1, 72, 16}, nullptr)).find("not 72") != std::string::npos);
  CHECK(MESSAGE_OF(Error, rope_cuda(RopeArgs{}, {1, 272, 16}, nullptr)).find("not 272") != std::string::npos);
}

}  // namespace

extern const TestTable kCudaSmallOpsTests = {"cuda small ops",
                                             {{"norm equals its reference", norm_equals_reference},
                                              {"norm sums in the order of the contract", norm_sums_in_order},
                                              {"rope equals its reference", rope_equals_reference},
                                              {"rows are copied", rows_are_copied},
                                              {"chains of early starts in a graph", chains_in_a_graph},
                                              {"a small case of every kernel", small_case},
                                              {"refuses what it can't do", refusals}}};

}  // namespace detinfer::testing
