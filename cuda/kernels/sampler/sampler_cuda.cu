#include "kernels/sampler/sampler_cuda.h"

#include <algorithm>
#include <numeric>
#include <string>
#include <vector>

#include "core/cuda_memory.cuh"
#include "core/upload.cuh"
#include "kernels/sampler/adjust.h"
#include "kernels/sampler/sampler_table.cuh"

namespace detinfer {
namespace {

using sampler::RowResult;
using sampler::RowTask;
using sampler::TableHeader;

constexpr size_t kAlignment = 16;

size_t aligned(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

/// Pinned memory of the host and what the device has in its place, which grow when a call needs more, not while a call uses
/// them: a copy of its own of what it reads; what it writes goes straight to the host's.
class Mirror {
 public:
  enum Access { kRead, kWritten };

  explicit Mirror(Access access) : access_(access) {}

  void reserve(size_t bytes) {
    if (bytes <= bytes_) return;
    const size_t wanted = std::max(bytes, 2 * bytes_);
    bytes_ = 0;
    host_ = std::make_unique<CudaArray<char>>(CudaMemory::kPinned, int64_t(wanted));
    if (access_ == kRead) device_ = std::make_unique<CudaArray<char>>(CudaMemory::kDevice, int64_t(wanted));
    bytes_ = wanted;
  }
  char* host() const { return host_ ? host_->data() : nullptr; }
  char* device() const { return device_ ? device_->data() : host(); }

 private:
  Access access_;
  std::unique_ptr<CudaArray<char>> host_, device_;
  size_t bytes_ = 0;
};

/// Hands out pieces of a mirror one after another.
class Pieces {
 public:
  explicit Pieces(const Mirror& mirror) : mirror_(mirror) {}

  /// Room for `count` elements. @return its address on the device; null for none
  template <class T>
  T* take(int64_t count) {
    if (count == 0) return nullptr;
    char* const at = mirror_.device() + used_;
    used_ += aligned(size_t(count) * sizeof(T));
    return reinterpret_cast<T*>(at);
  }
  /// Takes room for a copy of values[count] and writes it in the host's half.
  template <class T>
  T* put(const T* values, int64_t count) {
    T* const at = take<T>(count);
    if (at) std::copy_n(values, count, host(at));
    return at;
  }
  /// Where the host has what the device has at `at`.
  template <class T>
  T* host(T* at) const {
    return reinterpret_cast<T*>(mirror_.host() + (reinterpret_cast<char*>(at) - mirror_.device()));
  }
  size_t used() const { return used_; }

 private:
  const Mirror& mirror_;
  size_t used_ = 0;
};

int mask_words(int vocab) { return (vocab + 31) / 32; }

bool reports(const RowRequest& r) {
  return r.target >= 0 || r.sampled_logprob || r.top > 0 || r.token_id_count > 0;
}

/// Bytes of the lists that the request points to.
size_t input_bytes(const RowRequest& r, int vocab) {
  size_t bytes = aligned(size_t(r.token_id_count) * sizeof(int32_t));
  if (!r.sample) return bytes;
  bytes += 2 * aligned(size_t(r.sample->penalties.count) * sizeof(int32_t));
  bytes += 2 * aligned(size_t(r.sample->bias_count) * sizeof(int32_t));
  if (r.sample->allowed) bytes += aligned(size_t(mask_words(vocab)) * sizeof(uint32_t));
  return bytes;
}

size_t output_bytes(const RowRequest& r) {
  return 2 * aligned(size_t(r.top) * sizeof(float)) + aligned(size_t(r.token_id_count) * sizeof(float));
}

/// Copies the biases, those of one token side by side and otherwise in their order.
void put_biases(const SampleArgs& args, Pieces& inputs, RowTask& task) {
  task.bias_count = args.bias_count;
  if (args.bias_count == 0) return;
  int32_t* const ids = inputs.take<int32_t>(args.bias_count);
  float* const values = inputs.take<float>(args.bias_count);
  task.bias_ids = ids;
  task.bias_values = values;
  std::vector<int> order(args.bias_count);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return args.bias_ids[a] < args.bias_ids[b]; });
  for (int i = 0; i < args.bias_count; ++i) {
    inputs.host(ids)[i] = args.bias_ids[order[i]];
    inputs.host(values)[i] = args.bias_values[order[i]];
  }
}

void put_sample(const SampleArgs& args, int vocab, Pieces& inputs, RowTask& task) {
  task.samples = true;
  task.greedy = args.greedy;
  task.temperature = args.temperature;
  task.top_k = int32_t(args.top_k < 0 ? vocab : std::min<int64_t>(args.top_k, vocab));
  task.top_p = args.top_p;
  task.min_mass = min_p_mass(args.min_p);
  task.key = args.key;
  if (args.allowed) task.allowed = inputs.put(args.allowed, mask_words(vocab));
  const PenaltyArgs& penalties = args.penalties;
  task.frequency = penalties.frequency;
  task.presence = penalties.presence;
  task.repetition = penalties.repetition;
  task.penalty_count = penalties.count;
  task.penalty_ids = inputs.put(penalties.ids, penalties.count);
  task.penalty_counts = inputs.put(penalties.counts, penalties.count);
  put_biases(args, inputs, task);
}

void check_rows(int rows, int max_rows) {
  if (rows <= max_rows) return;
  throw Error(ErrorCode::kEngineFailed,
              "the sampler got " + std::to_string(rows) + " rows; it has room for " + std::to_string(max_rows));
}

}  // namespace

struct CudaSampler::State {
  /// A call from send() to deliver().
  struct Call {
    Call(int max_rows) : table(CudaMemory::kPinned, table_bytes(max_rows)) {}

    bool busy = false;
    CudaArray<char> table;
    Mirror inputs{Mirror::kRead}, outputs{Mirror::kWritten};
  };

  State(int vocab, int max_rows)
      : vocab(vocab), max_rows(max_rows), table(CudaMemory::kDevice, table_bytes(max_rows)) {
    // A run before any send() finds no rows.
    CUDA_CHECK(cudaMemset(table.data(), 0, sizeof(TableHeader)));
    CUDA_CHECK(cudaDeviceSynchronize());
  }

  static int64_t table_bytes(int rows) { return int64_t(sizeof(TableHeader) + size_t(rows) * sizeof(RowTask)); }

  int free_call() {
    const auto found = std::find_if(calls.begin(), calls.end(), [](const auto& call) { return !call->busy; });
    if (found != calls.end()) return int(found - calls.begin());
    calls.push_back(std::make_unique<Call>(max_rows));
    return int(calls.size()) - 1;
  }

  int vocab, max_rows;
  CudaArray<char> table;
  std::vector<std::unique_ptr<Call>> calls;
};

CudaSampler::CudaSampler(int vocab, int max_rows) {
  sampler::prepare_sampler(vocab);
  state_ = std::make_unique<State>(vocab, max_rows);
}

CudaSampler::~CudaSampler() = default;

int CudaSampler::send(const RowRequest* requests, int count, cudaStream_t stream) {
  State& s = *state_;
  check_rows(count, s.max_rows);
  const int number = s.free_call();
  State::Call& call = *s.calls[number];
  size_t in = 0, out = aligned(size_t(count) * sizeof(RowResult));
  for (int i = 0; i < count; ++i) {
    in += input_bytes(requests[i], s.vocab);
    out += output_bytes(requests[i]);
  }
  call.inputs.reserve(in);
  call.outputs.reserve(out);

  Pieces inputs(call.inputs), outputs(call.outputs);
  reinterpret_cast<TableHeader*>(call.table.data())->count = count;
  RowTask* const tasks = reinterpret_cast<RowTask*>(call.table.data() + sizeof(TableHeader));
  RowResult* const results = outputs.take<RowResult>(count);
  for (int i = 0; i < count; ++i) {
    const RowRequest& r = requests[i];
    RowTask& task = tasks[i] = RowTask{};
    task.logprob_temperature = r.logprob_temperature;
    task.target = r.target;
    task.top = r.top;
    task.token_id_count = r.token_id_count;
    task.token_ids = inputs.put(r.token_ids, r.token_id_count);
    task.reports = reports(r);
    task.sampled_logprob = r.sampled_logprob;
    task.drawn_index = r.drawn_index;
    if (r.sample) put_sample(*r.sample, s.vocab, inputs, task);
    task.result = results + i;
    task.top_logprobs = outputs.take<float>(r.top);
    task.top_ids = outputs.take<int32_t>(r.top);
    task.token_id_logprobs = outputs.take<float>(r.token_id_count);
  }
  upload_async(call.inputs.device(), call.inputs.host(), inputs.used(), stream);
  upload_async(s.table.data(), call.table.data(), size_t(State::table_bytes(count)), stream);
  call.busy = true;
  return number;
}

void CudaSampler::run(const float* logits, int rows, int32_t* drawn, cudaStream_t stream) {
  check_rows(rows, state_->max_rows);
  const TableHeader* const table = reinterpret_cast<const TableHeader*>(state_->table.data());
  sampler::launch_sampler(table, logits, state_->vocab, rows, drawn, stream);
}

void CudaSampler::deliver(int call, RowRequest* requests, int count) {
  State::Call& c = *state_->calls[call];
  c.busy = false;
  Pieces outputs(c.outputs);
  const RowResult* const results = count > 0 ? outputs.host(outputs.take<RowResult>(count)) : nullptr;
  for (int i = 0; i < count; ++i) {
    if (!results[i].finite) throw Error(ErrorCode::kEngineFailed, "the model computed a logit that is not finite");
  }
  for (int i = 0; i < count; ++i) {
    RowRequest& r = requests[i];
    if (r.sample) r.token = results[i].token;
    if (r.target >= 0 || r.sampled_logprob) r.logprob = results[i].logprob;
    const auto copy = [&](auto* to, int64_t n) {
      auto* const from = outputs.take<std::remove_pointer_t<decltype(to)>>(n);
      if (from) std::copy_n(outputs.host(from), n, to);
    };
    copy(r.top_logprobs, r.top);
    copy(r.top_ids, r.top);
    copy(r.token_id_logprobs, r.token_id_count);
  }
}

}  // namespace detinfer
