// The sampler on a GPU against the readable reference: every token and every bit of every log-probability.
#include "kernels/sampler/sampler_cuda.h"

#include <limits>

#include "core/error.h"
#include "tests/cuda/device_buffer.h"
#include "tests/cuda/sampler_batch.h"

namespace detinfer::testing {
namespace {

class Stream {
 public:
  Stream() { CUDA_CHECK(cudaStreamCreate(&stream_)); }
  ~Stream() { cudaStreamDestroy(stream_); }
  operator cudaStream_t() const { return stream_; }
  void wait() const { CUDA_CHECK(cudaStreamSynchronize(stream_)); }

 private:
  cudaStream_t stream_;
};

std::vector<RowRequest> requests_of(const std::vector<Row>& rows) {
  std::vector<RowRequest> requests;
  for (const Row& row : rows) requests.push_back(row.request);
  return requests;
}

/// A call's requests, from send() to deliver().
struct Call {
  explicit Call(const std::vector<RowRequest>& wanted) : rows(wanted.begin(), wanted.end()) {}

  void send(CudaSampler& sampler, cudaStream_t stream) {
    const auto requests = requests_of(rows);
    number = sampler.send(requests.data(), int(requests.size()), stream);
  }
  void deliver(CudaSampler& sampler) {
    auto requests = requests_of(rows);
    sampler.deliver(number, requests.data(), int(requests.size()));
    for (size_t i = 0; i < rows.size(); ++i) rows[i].request = requests[i];
  }
  void check(const std::vector<Row>& expected, size_t first, const std::string& what) const {
    for (size_t i = 0; i < rows.size(); ++i) {
      check_equal_rows(rows[i], expected[first + i], what + ", row " + std::to_string(first + i));
    }
  }

  std::vector<Row> rows;
  int number = -1;
};

void check_drawn(const std::vector<int32_t>& drawn, const std::vector<Row>& expected, const std::string& what) {
  std::vector<int32_t> wanted(drawn.size(), -1);
  for (const Row& row : expected) {
    if (row.request.sample && row.request.drawn_index >= 0) wanted[row.request.drawn_index] = row.request.token;
  }
  for (size_t i = 0; i < drawn.size(); ++i) {
    CHECK_MESSAGE(drawn[i] == wanted[i], what << ", drawn " << i << ": " << drawn[i] << " against " << wanted[i]);
  }
}

void check_batch(CudaSampler& sampler, const Batch& batch, const std::string& what) {
  const Stream stream;
  const std::vector<Row> expected = batch.on_cpu();
  const DeviceBuffer<float> logits(batch.logits);
  DeviceBuffer<int32_t> drawn(batch.rows() + 1);
  for (int repeat = 0; repeat < 2; ++repeat) {
    drawn.poison();
    CUDA_CHECK(cudaDeviceSynchronize());
    Call call(batch.wanted);
    call.send(sampler, stream);
    sampler.run(logits.data(), batch.rows(), drawn.data(), stream);
    stream.wait();
    call.deliver(sampler);
    call.check(expected, 0, what);
    check_drawn(drawn.download(), expected, what);
  }
}

void random_batches() {
  std::mt19937_64 random(51);
  const int row_counts[] = {1, 2, 7, 8, 9, 31, 64};
  for (int trial = 0; trial < 120; ++trial) {
    const int n = trial < 40 ? 1 + trial : trial % 10 == 0 ? 320 : 1 + int(random() % 4000);
    const int rows = row_counts[random() % 7];
    CudaSampler sampler(n, rows);
    check_batch(sampler, Batch(rows, n, random), "trial " + std::to_string(trial) + " of " + std::to_string(n));
  }
}

/// What scripts/sanitize.mjs runs: requests of every kind, over vocabularies of one part and of several.
void small_case() {
  std::mt19937_64 random(57);
  for (const auto& [rows, n] : {std::pair{3, 40}, std::pair{2, 1500}}) {
    CudaSampler sampler(n, rows);
    check_batch(sampler, Batch(rows, n, random), std::to_string(rows) + " rows of " + std::to_string(n));
  }
}

void full_vocabularies() {
  std::mt19937_64 random(52);
  for (int n : {151936, 128256, 151935, 262144}) {
    for (int rows : {1, 7, 40}) {
      CudaSampler sampler(n, rows);
      check_batch(sampler, Batch(rows, n, random), std::to_string(rows) + " rows of " + std::to_string(n));
    }
  }
}

/// A large batch, then each of its rows alone and in parts of it.
void rows_do_not_depend_on_the_batch() {
  std::mt19937_64 random(53);
  const int n = 20000, rows = 256;
  const Batch batch(rows, n, random);
  CudaSampler sampler(n, rows);
  check_batch(sampler, batch, "batch");
  const std::vector<Row> expected = batch.on_cpu();
  const Stream stream;
  const DeviceBuffer<float> logits(batch.logits);
  DeviceBuffer<int32_t> drawn(rows);
  for (int count : {1, 5, 100}) {
    for (int first = 0; first < rows; first += count) {
      const int size = std::min(count, rows - first);
      Call call({batch.wanted.begin() + first, batch.wanted.begin() + first + size});
      call.send(sampler, stream);
      sampler.run(logits.data() + size_t(first) * n, size, drawn.data(), stream);
      stream.wait();
      call.deliver(sampler);
      call.check(expected, first, "in parts of " + std::to_string(count));
    }
  }
}

/// One graph for a run of 12 rows, replayed for other requests and for fewer rows; several calls are under way, and the
/// results of each are read after the last one ran.
void graph_follows_the_requests() {
  std::mt19937_64 random(54);
  const int n = 3000, rows = 12;
  std::vector<Batch> batches;
  for (int i = 0; i < 8; ++i) batches.emplace_back(i % 3 == 0 ? rows : 1 + int(random() % rows), n, random);
  CudaSampler sampler(n, rows);
  const Stream stream;
  DeviceBuffer<float> logits(size_t(rows) * n);
  DeviceBuffer<int32_t> drawn(rows);
  cudaGraph_t graph;
  cudaGraphExec_t replay;
  CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  // Twice back to back, so that the second starts while the first ends.
  sampler.run(logits.data(), rows, drawn.data(), stream);
  sampler.run(logits.data(), rows, drawn.data(), stream);
  CUDA_CHECK(cudaStreamEndCapture(stream, &graph));
  CUDA_CHECK(cudaGraphInstantiate(&replay, graph, 0));
  CUDA_CHECK(cudaGraphLaunch(replay, stream));  // before any send: there is nothing to do
  for (int round = 0; round < 3; ++round) {
    std::vector<Call> calls;
    std::vector<std::vector<int32_t>> drawns(batches.size(), std::vector<int32_t>(rows));
    for (const Batch& batch : batches) calls.emplace_back(batch.wanted);
    for (size_t i = 0; i < batches.size(); ++i) {
      const Batch& batch = batches[i];
      CUDA_CHECK(cudaMemcpyAsync(logits.data(), batch.logits.data(), batch.logits.size() * sizeof(float),
                                 cudaMemcpyHostToDevice, stream));
      CUDA_CHECK(cudaMemsetAsync(drawn.data(), 0xFF, rows * sizeof(int32_t), stream));
      calls[i].send(sampler, stream);
      CUDA_CHECK(cudaGraphLaunch(replay, stream));
      CUDA_CHECK(
          cudaMemcpyAsync(drawns[i].data(), drawn.data(), rows * sizeof(int32_t), cudaMemcpyDeviceToHost, stream));
    }
    stream.wait();
    for (size_t i = 0; i < batches.size(); ++i) {
      const std::string what = "batch " + std::to_string(i) + " in a graph";
      const std::vector<Row> expected = batches[i].on_cpu();
      calls[i].deliver(sampler);
      calls[i].check(expected, 0, what);
      check_drawn(drawns[i], expected, what);
    }
  }
  CUDA_CHECK(cudaGraphExecDestroy(replay));
  CUDA_CHECK(cudaGraphDestroy(graph));
}

/// The whole vocabulary in order, and ties that overflow the list of those in order.
void long_lists() {
  std::mt19937_64 random(55);
  const int n = 30000;
  for (Logits kind : {Logits::kNormal, Logits::kTies, Logits::kEqual}) {
    Batch batch(2, n, random);
    batch.logits = logits_of(kind, n, random);
    const auto more = logits_of(kind, n, random);
    batch.logits.insert(batch.logits.end(), more.begin(), more.end());
    batch.wanted[0].top = n;
    batch.wanted[1].top = 20;
    CudaSampler sampler(n, 2);
    check_batch(sampler, batch, "logits of kind " + std::to_string(int(kind)));
  }
}

void refuses_logits_that_are_not_finite() {
  const int n = 5000, rows = 3;
  CudaSampler sampler(n, rows);
  const Stream stream;
  for (float bad : {kInfinity, -kInfinity, std::numeric_limits<float>::quiet_NaN()}) {
    for (int at : {0, n - 1, 2 * n + 1234}) {
      std::vector<float> values(size_t(rows) * n, 1.0f);
      values[at] = bad;
      const DeviceBuffer<float> logits(values);
      DeviceBuffer<int32_t> drawn(rows);
      SampleArgs args;
      std::vector<RowRequest> wanted(rows);
      for (int i = 0; i < rows; ++i) {
        wanted[i].sample = &args;
        wanted[i].drawn_index = i;
      }
      if (at % 2 == 0) wanted[at / n].target = 3;
      for (bool sound : {false, true}) {
        if (sound) CUDA_CHECK(cudaMemset(const_cast<float*>(logits.data()) + at, 0, sizeof(float)));
        drawn.poison();
        Call call(wanted);
        call.send(sampler, stream);
        sampler.run(logits.data(), rows, drawn.data(), stream);
        stream.wait();
        for (int32_t token : drawn.download()) CHECK(token >= 0 && token < n);
        if (sound) {
          call.deliver(sampler);
        } else {
          const std::string message = MESSAGE_OF(Error, call.deliver(sampler));
          CHECK_EQ(message, "the model computed a logit that is not finite");
        }
      }
    }
  }
}

/// Each part of the random requests decides some results: a sampler that ignored it would fail the comparisons above.
void every_parameter_matters() {
  std::mt19937_64 random(56);
  int filters = 0, min_p = 0, adjustments = 0, masks = 0, temperatures = 0, keys = 0;
  for (int trial = 0; trial < 20; ++trial) {
    const Batch batch(64, 500, random);
    const std::vector<Row> expected = batch.on_cpu();
    for (int i = 0; i < batch.rows(); ++i) {
      if (!batch.wanted[i].sample) continue;
      const auto differs = [&](auto change) {
        SampleArgs args = batch.args[i];
        change(args);
        RowRequest request;
        request.sample = &args;
        evaluate_row_reference(batch.row(i), batch.n, request);
        return request.token != expected[i].request.token;
      };
      filters += differs([](SampleArgs& a) { a.top_k = -1, a.top_p = 1.0; });
      min_p += differs([](SampleArgs& a) { a.min_p = 0.0; });
      adjustments += differs([](SampleArgs& a) { a.penalties.count = a.bias_count = 0; });
      masks += differs([](SampleArgs& a) { a.allowed = nullptr; });
      temperatures += differs([](SampleArgs& a) { a.temperature *= 1.5f; });
      keys += differs([](SampleArgs& a) { ++a.key.position; });
    }
  }
  for (int changed : {filters, min_p, adjustments, masks, temperatures, keys}) CHECK(changed >= 20);
}

}  // namespace

extern const TestTable kCudaSamplerTests = {
    "cuda sampler",
    {{"random batches", random_batches},
     {"a small case of every kernel", small_case},
     {"full vocabularies", full_vocabularies},
     {"rows do not depend on the batch", rows_do_not_depend_on_the_batch},
     {"graph follows the requests", graph_follows_the_requests},
     {"long lists", long_lists},
     {"refuses logits that are not finite", refuses_logits_that_are_not_finite},
     {"every parameter matters", every_parameter_matters}}};

}  // namespace detinfer::testing
