// Every backend of attention against the CPU: every bit of every output, in f32 before rounding where a reference gives it.
#include <algorithm>
#include <fstream>
#include <string>

#include "core/error.h"
#include "core/launch.cuh"
#include "tests/cuda/attention_step.h"
#include "tests/native/check.h"

namespace detinfer::testing {
namespace {

/// The recorded case, as one sequence whose rows are all new; rows that weren't recorded have other queries.
void recorded_case(const std::string& backend) {
  std::ifstream file("tests/fixtures/attention/h200.bin", std::ios::binary);
  CHECK(file.good());
  int32_t header[5];
  file.read(reinterpret_cast<char*>(header), sizeof header);
  const int length = header[0], heads = header[1], dim = header[3], recorded = header[4];
  auto read = [&](auto& values) {
    file.read(reinterpret_cast<char*>(values.data()), std::streamsize(values.size() * sizeof(values[0])));
    CHECK(file.good());
  };
  std::vector<int32_t> positions(recorded);
  std::vector<bf16> keys(size_t(length) * dim), values(keys.size()), q(size_t(recorded) * heads * dim);
  std::vector<float> expected(q.size());
  read(positions);
  read(keys);
  read(values);
  read(q);
  read(expected);
  const size_t row_size = size_t(heads) * dim;
  for (int page_size : {16, 64, 128, 1024}) {
    Step step({heads, 1, dim, page_size}, {{length, length}}, Operands::kNormal, Operands::kNormal, bf16{0x7F7F}, 1);
    for (int n = 0; n < length; ++n) {
      for (int d = 0; d < dim; ++d) {
        const int64_t at = step.gpu.offset(step.pages[n / page_size], 0, n % page_size, d);
        step.gpu_keys[at] = keys[size_t(n) * dim + d];
        step.gpu_values[at] = values[size_t(n) * dim + d];
      }
    }
    for (int r = 0; r < recorded; ++r) std::copy_n(&q[r * row_size], row_size, &step.q[positions[r] * row_size]);
    OnGpu gpu(backend, step);
    // A chunk of 1 decodes at every position.
    for (int chunk : {length, 500, 129, 7, 1}) {
      const std::vector<float> out = gpu.run_f32(step.chunks(chunk));
      for (int r = 0; r < recorded; ++r) {
        for (size_t i = 0; i < row_size; ++i) {
          const float a = out[positions[r] * row_size + i], b = expected[r * row_size + i];
          CHECK_MESSAGE(float_bits(a) == float_bits(b), "page size " << page_size << " chunk " << chunk << " position "
                                                                     << positions[r] << " element " << i << ": " << a
                                                                     << " != " << b);
        }
      }
    }
  }
}

/// All rows of a sequence, decoded one by one and prefilled in chunks, against the CPU and each other.
void decode_equals_prefill(const std::string& backend) {
  for (const Shape& shape : {Shape{8, 2, 128, 64}, Shape{8, 2, 64, 128}}) {
    const Step step(shape, {{1300, 1300}}, Operands::kNormal, Operands::kNormal, bf16{0x7F7F}, 2);
    OnGpu gpu(backend, step);
    const std::vector<float> whole = gpu.run_f32(step.slices);
    check_same(gpu.run(step.slices), step.on_cpu(), "prefill, " + shape.text());
    for (int chunk : {1, 2, 3, 16, 31, 64, 127, 128, 129, 512, 1000}) {
      check_same(gpu.run_f32(step.chunks(chunk)), whole, "chunks of " + std::to_string(chunk) + ", " + shape.text());
    }
  }
}

/// attention_reference at some positions of a step of one sequence. [position][head][dim]
std::vector<float> reference_rows(const Step& step, int length, const std::vector<int>& positions) {
  const Shape& shape = step.shape;
  const int group = shape.heads / shape.kv_heads, dim = shape.dim;
  std::vector<std::vector<bf16>> keys(shape.kv_heads), values(shape.kv_heads);
  for (int h = 0; h < shape.kv_heads; ++h) {
    for (int n = 0; n < length; ++n) {
      const int64_t at = step.gpu.offset(step.pages[n / shape.page_size], h, n % shape.page_size, 0);
      keys[h].insert(keys[h].end(), &step.gpu_keys[at], &step.gpu_keys[at] + dim);
      values[h].insert(values[h].end(), &step.gpu_values[at], &step.gpu_values[at] + dim);
    }
  }
  std::vector<float> result(positions.size() * shape.heads * dim);
  pool().parallel_for(int64_t(positions.size()) * shape.heads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int position = positions[i / shape.heads], head = int(i % shape.heads);
      attention_reference(&step.q[(size_t(position) * shape.heads + head) * dim], keys[head / group].data(),
                          values[head / group].data(), position, dim, &result[i * dim]);
    }
  });
  return result;
}

/// Some rows of f32 outputs against the readable reference. Scores stay below 2^24, where the rule of weights ends.
void f32_equals_reference(const std::string& backend) {
  const int length = 700;
  const std::vector<int> positions = {0, 15, 16, 127, 128, 129, 300, 511, 512, 640, 699};
  struct Kinds {
    Operands keys, values;
  };
  for (const Kinds& kinds : {Kinds{Operands::kNormal, Operands::kSpread}, Kinds{Operands::kLargestMantissa, Operands::kTiny},
                             Kinds{Operands::kTiny, Operands::kLargestMantissa},
                             Kinds{Operands::kHalfZeros, Operands::kFiniteBits}}) {
    for (const Shape& shape : {Shape{6, 2, 128, 16}, Shape{2, 2, 64, 64}}) {
      const Step step(shape, {{length, length}}, kinds.keys, kinds.values, bf16{0}, 3);
      OnGpu gpu(backend, step);
      const std::vector<float> prefilled = gpu.run_f32(step.slices), decoded = gpu.run_f32(step.chunks(1));
      const size_t row_size = size_t(shape.heads) * shape.dim;
      const std::vector<float> expected = reference_rows(step, length, positions);
      for (size_t p = 0; p < positions.size(); ++p) {
        const size_t at = positions[p] * row_size;
        const std::vector<float> row(&expected[p * row_size], &expected[p * row_size] + row_size);
        const std::string what = shape.text() + ", operands " + std::to_string(int(kinds.keys)) + " and " +
                                 std::to_string(int(kinds.values)) + ", position " + std::to_string(positions[p]);
        check_same(std::vector<float>(&prefilled[at], &prefilled[at] + row_size), row, "prefilled, " + what);
        check_same(std::vector<float>(&decoded[at], &decoded[at] + row_size), row, "decoded, " + what);
      }
    }
  }
}

/// Prefill chunks behind prefixes and decodes in one step, over head counts, head dimensions and page sizes.
void ragged_steps(const std::string& backend) {
  std::mt19937_64 random(4);
  const int groups[] = {1, 2, 4, 5, 7, 8, 3, 12, 16};
  const int page_sizes[] = {16, 32, 64, 128, 256, 1024};
  for (int trial = 0; trial < 36; ++trial) {
    Shape shape;
    shape.kv_heads = 1 + int(random() % 3);
    shape.heads = shape.kv_heads * groups[trial % 9];
    shape.dim = trial % 2 ? 64 : 128;
    shape.page_size = page_sizes[trial % 6];
    std::vector<Step::Sequence> sequences;
    const int count = 1 + int(random() % 12);
    for (int i = 0; i < count; ++i) {
      const int length = 1 + int(random() % (i == 0 ? 3000 : 600));
      const int rows = random() % 2 ? 1 : 1 + int(random() % std::min(length, 300));
      sequences.push_back({length, rows});
    }
    const Operands kind = trial % 4 == 3 ? Operands::kHalfZeros : Operands::kNormal;
    // The largest finite value behind masked keys must count as nothing.
    const Step step(shape, sequences, kind, kind, random() % 2 ? bf16{0x7F7F} : bf16{0xFF7F}, random());
    OnGpu gpu(backend, step);
    const std::string what = "trial " + std::to_string(trial) + ", " + shape.text();
    const std::vector<bf16> expected = step.on_cpu();
    check_same(gpu.run(step.slices), expected, what);
    for (int chunk : {1, 40}) {
      check_same(gpu.run(step.chunks(chunk)), expected, what + ", chunks of " + std::to_string(chunk));
    }
  }
}

/// One graph, replayed after new plans: batches of other sizes and lengths, and an empty one, whose rows stay untouched.
void graph_follows_the_plan(const std::string& backend) {
  const Shape shape{8, 2, 128, 64};
  std::vector<Step::Sequence> sequences;
  for (int length : {1, 64, 511, 512, 513, 1500, 4000}) sequences.push_back({length, 1});
  const Step step(shape, sequences, Operands::kNormal, Operands::kNormal, bf16{0}, 5);
  const std::vector<bf16> expected = step.on_cpu();
  DeviceBuffer<bf16> keys(step.gpu_keys), values(step.gpu_values), q(step.q), out(step.q.size());
  const std::unique_ptr<AttentionBackend> attention = make_backend(backend, step);
  cudaStream_t stream;
  CUDA_CHECK(cudaStreamCreate(&stream));
  attention->plan(step.slices.data(), 1, stream);
  cudaGraph_t graph;
  cudaGraphExec_t replay;
  CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  attention->attend(q.data(), keys.data(), values.data(), out.data(), stream);
  CUDA_CHECK(cudaStreamEndCapture(stream, &graph));
  CUDA_CHECK(cudaGraphInstantiate(&replay, graph, 0));
  const size_t row_size = size_t(shape.heads) * shape.dim;
  for (int count : {7, 3, 0, 1, 7, 5}) {
    out.poison();
    CUDA_CHECK(cudaDeviceSynchronize());
    attention->plan(step.slices.data(), count, stream);
    CUDA_CHECK(cudaGraphLaunch(replay, stream));
    CUDA_CHECK(cudaStreamSynchronize(stream));
    const std::vector<bf16> actual = out.download();
    for (size_t i = 0; i < actual.size(); ++i) {
      const bf16 wanted = i < count * row_size ? expected[i] : bf16{0xFFFF};
      CHECK_MESSAGE(actual[i].bits == wanted.bits, count << " sequences, element " << i);
    }
  }
  CUDA_CHECK(cudaGraphExecDestroy(replay));
  CUDA_CHECK(cudaGraphDestroy(graph));
  CUDA_CHECK(cudaStreamDestroy(stream));
}

/// The shapes that are benchmarked, a sample of rows against the CPU.
void large_steps(const std::string& backend) {
  const Shape shape{32, 8, 128, 64};
  const int length = 8192;
  const Step step(shape, {{length, length}}, Operands::kNormal, Operands::kNormal, bf16{0}, 6);
  OnGpu gpu(backend, step);
  const std::vector<bf16> prefilled = gpu.run(step.slices);
  std::vector<AttentionSlice> sample;
  for (int first : {0, 500, 1023, 2048, 4090, 6000, 8184}) sample.push_back({first, 8, first, step.pages.data()});
  std::vector<bf16> expected(step.q.size());
  attention_cpu(pool(), step.q.data(), shape.heads, step.cpu_keys.data(), step.cpu_values.data(), step.cpu,
                sample.data(), int(sample.size()), expected.data());
  const size_t row_size = size_t(shape.heads) * shape.dim;
  std::vector<AttentionSlice> rows;
  for (const AttentionSlice& s : sample) {
    for (int r = 0; r < s.rows; ++r) rows.push_back({s.first_row + r, 1, s.start + r, s.pages});
  }
  const std::vector<bf16> decoded = gpu.run(rows);
  for (const AttentionSlice& s : rows) {
    const size_t at = s.first_row * row_size;
    const std::vector<bf16> row(&expected[at], &expected[at] + row_size);
    const std::string what = "position " + std::to_string(s.start);
    check_same(std::vector<bf16>(&prefilled[at], &prefilled[at] + row_size), row, "prefilled, " + what);
    check_same(std::vector<bf16>(&decoded[at], &decoded[at] + row_size), row, "decoded, " + what);
  }
}

/// Heads of every size that is compiled or padded to one, prefilled and decoded.
void other_head_dims(const std::string& backend) {
  for (int dim : {16, 32, 48, 80, 96, 112, 160, 256}) {
    for (int heads : {6, 24}) {
      const Shape shape{heads, 2, dim, 32};
      const Step step(shape, {{700, 300}, {600, 1}, {1100, 70}, {40, 40}, {100, 1}}, Operands::kNormal, Operands::kNormal,
                      bf16{0x7F7F}, dim);
      OnGpu gpu(backend, step);
      const std::vector<bf16> expected = step.on_cpu();
      for (int chunk : {300, 40, 1}) {
        check_same(gpu.run(step.chunks(chunk)), expected, "chunks of " + std::to_string(chunk) + ", " + shape.text());
      }
    }
  }
}

/// A few tiles more than thread blocks, all equally long: some are cut, and a total is handed on. Twice, since what says
/// so must be as it was.
void shared_tiles(const std::string& backend) {
  for (int dim : {64, 80, 128, 256}) {
    const Shape shape{16, 8, dim, 32};
    const int tiles = multiprocessor_count() / shape.kv_heads + 3;
    const Step step(shape, std::vector<Step::Sequence>(tiles, {1480, 60}), Operands::kNormal, Operands::kNormal,
                    bf16{0x7F7F}, dim);
    OnGpu gpu(backend, step);
    const std::vector<bf16> expected = step.on_cpu();
    for (int run : {1, 2}) check_same(gpu.run(step.slices), expected, "run " + std::to_string(run) + ", " + shape.text());
  }
}

/// What scripts/sanitize.mjs runs: prefill and decoding, splits of one sequence and of none, in both head dimensions.
void small_case(const std::string& backend) {
  for (const Shape& shape : {Shape{6, 2, 128, 16}, Shape{10, 1, 64, 256}}) {
    const Step step(shape, {{1100, 1}, {700, 60}, {40, 40}, {100, 1}, {600, 1}}, Operands::kNormal, Operands::kNormal,
                    bf16{0x7F7F}, 7);
    check_same(OnGpu(backend, step).run(step.slices), step.on_cpu(), shape.text());
  }
}

void refusals(const std::string& backend) {
  const AttentionLimits limits{2, 64, 8, 4};
  auto make = [&](int heads, PagedKvLayout kv) { make_attention_backend(backend, kv, heads, 8, limits); };
  CHECK(MESSAGE_OF(Error, make(4, {2, 72, 64})).find("head_dim 72") != std::string::npos);
  CHECK(MESSAGE_OF(Error, make(4, {2, 64, 48})).find("page size 48") != std::string::npos);
  CHECK(MESSAGE_OF(Error, make(64, {2, 64, 64})).find("64 query heads over 2") != std::string::npos);
  const auto attention = make_attention_backend(backend, {2, 64, 64}, 4, 8, limits);
  const std::vector<int32_t> pages(64);
  auto plan = [&](std::vector<AttentionSlice> slices) { attention->plan(slices.data(), int(slices.size()), nullptr); };
  CHECK(MESSAGE_OF(Error, plan({{0, 1, 0, pages.data()}, {1, 1, 0, pages.data()}, {2, 1, 0, pages.data()}}))
            .find("at most 2 slices") != std::string::npos);
  CHECK(MESSAGE_OF(Error, plan({{0, 65, 0, pages.data()}})).find("at most 64 rows") != std::string::npos);
  CHECK(MESSAGE_OF(Error, plan({{0, 2, 511, pages.data()}})).find("at most 8 pages") != std::string::npos);
}

/// A table's tests take no arguments, so a backend's name is a template's.
template <const char* kName>
std::vector<Test> tests_of_backend() {
  return {{"the recorded case of an H200", [] { recorded_case(kName); }},
          {"decode equals prefill at every position", [] { decode_equals_prefill(kName); }},
          {"f32 outputs equal the reference", [] { f32_equals_reference(kName); }},
          {"ragged steps equal the CPU", [] { ragged_steps(kName); }},
          {"a graph follows the plan", [] { graph_follows_the_plan(kName); }},
          {"a small case of every kernel", [] { small_case(kName); }},
          {"large steps equal the CPU", [] { large_steps(kName); }},
          {"refuses what it can't do", [] { refusals(kName); }}};
}

constexpr char kFa3[] = "fa3", kFlashinfer[] = "flashinfer", kTriton[] = "triton";

std::vector<Test> flashinfer_tests() {
  std::vector<Test> tests = tests_of_backend<kFlashinfer>();
  tests.push_back({"every head_dim equals the CPU", [] { other_head_dims(kFlashinfer); }});
  tests.push_back({"shared tiles equal the CPU", [] { shared_tiles(kFlashinfer); }});
  return tests;
}

}  // namespace

extern const TestTable kCudaFa3Tests = {"cuda attention fa3", tests_of_backend<kFa3>()};
extern const TestTable kCudaFlashinferTests = {"cuda attention flashinfer", flashinfer_tests()};
extern const TestTable kCudaTritonTests = {"cuda attention triton", tests_of_backend<kTriton>()};

}  // namespace detinfer::testing
