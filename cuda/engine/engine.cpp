#include "engine/engine.h"

#include <algorithm>

#include "core/error.h"
#include "engine/loader.h"
#include "kernels/cpu_ops.h"

namespace detinfer {
namespace {

/// Logits of so many bytes are made and evaluated at a time, so that a long prompt's never lie in memory at once.
constexpr int64_t kLogitsBytes = 32 << 20;

constexpr size_t kStepsUnderWay = 2;

template <class T>
const T* upload(Ops& ops, DeviceArray<T>& array, const T* values, size_t count) {
  T* const data = array.reserve(ops, count);
  ops.upload(data, values, count * sizeof(T));
  return data;
}

}  // namespace

Engine::Engine(const ConfigMap& config, std::unique_ptr<WeightSource> weights, int threads)
    : pool_(threads), ops_(make_cpu_ops(pool_)), model_(make_model(config)), weights_(std::move(weights)) {
  model_->collect(parameters_);
  check_parameters(parameters_, *weights_);
}

void Engine::load(const std::function<void(int64_t, int64_t)>& progress) {
  load_parameters(parameters_, *weights_, pool_, *ops_, progress);
  weights_.reset();
}

void Engine::reserve(int step_tokens, int step_sequences) {
  const int rows = std::min(step_tokens, ops_->pass_rows());
  tokens_.reserve(*ops_, rows);
  positions_.reserve(*ops_, rows);
  slots_.reserve(*ops_, rows);
  slices_.reserve(step_sequences);
  results_.reserve(step_sequences);
}

void Engine::allocate_cache(int page_size, int64_t pages, int context_length) {
  if (page_size < 16 || page_size % 16 != 0) {
    throw Error(ErrorCode::kInvalidRequest, "the page size must be a multiple of 16");
  }
  if (pages < 1) throw Error(ErrorCode::kInvalidRequest, "the KV cache needs at least one page");
  if (context_length < 1 || context_length > model_->max_positions()) {
    throw Error(ErrorCode::kInvalidRequest, "the context length must be from 1 to the model's " +
                                                std::to_string(model_->max_positions()));
  }
  context_length_ = context_length;
  KvLayout layout = model_->kv_layout();
  layout.page_size = page_size;
  cache_ = KvCache(*ops_, layout, model_->layers(), pages);

  const std::vector<double> frequencies = rope_frequencies(model_->rope(), layout.head_dim);
  std::vector<float> cos(context_length * frequencies.size()), sin(cos.size());
  fill_rope_tables(pool_, frequencies, context_length, cos.data(), sin.data());
  upload(*ops_, rope_.cos, cos.data(), cos.size());
  upload(*ops_, rope_.sin, sin.data(), sin.size());
}

void Engine::submit(const std::vector<ForwardSlice>& slices) {
  if (steps_.size() == kStepsUnderWay) {
    throw Error(ErrorCode::kInvalidRequest, "two steps are under way; collect the first before the next");
  }
  check_slices(slices, {model_->vocab_size(), context_length_, cache_.layout().page_size, cache_.pages(), &drawn_});
  results_.assign(slices.size(), SliceResult());
  collect_rows(slices);
  collect_wanted(slices);
  const int rows = int(host_tokens_.size()), limit = ops_->pass_rows();
  for (int begin = 0; begin < rows; begin += limit) run_pass(begin, std::min(rows, begin + limit));
  drawn_.clear();
  for (const SliceResult& result : results_) drawn_.push_back(result.token);
  steps_.push_back(std::move(results_));
}

std::vector<SliceResult> Engine::collect() {
  if (steps_.empty()) throw Error(ErrorCode::kInvalidRequest, "no step is under way");
  std::vector<SliceResult> results = std::move(steps_.front());
  steps_.pop_front();
  return results;
}

void Engine::collect_rows(const std::vector<ForwardSlice>& slices) {
  const int page_size = cache_.layout().page_size;
  host_tokens_.clear();
  host_positions_.clear();
  host_slots_.clear();
  slices_.clear();
  for (const ForwardSlice& slice : slices) {
    slices_.push_back({int(host_tokens_.size()), slice.token_count, slice.start, slice.pages});
    for (int i = 0; i < slice.token_count; ++i) {
      const int position = slice.start + i;
      const int32_t token = slice.tokens[i];
      host_tokens_.push_back(token < 0 ? drawn_[-1 - token] : token);
      host_positions_.push_back(position);
      host_slots_.push_back(int64_t(slice.pages[position / page_size]) * page_size + position % page_size);
    }
  }
}

void Engine::run_pass(int begin, int end) {
  pass_slices_.clear();
  for (const AttentionSlice& slice : slices_) {
    const int first = std::max(begin, slice.first_row), last = std::min(end, slice.first_row + slice.rows);
    if (first < last) {
      pass_slices_.push_back({first - begin, last - first, slice.start + first - slice.first_row, slice.pages});
    }
  }
  Batch batch;
  batch.rows = end - begin;
  batch.tokens = upload(*ops_, tokens_, host_tokens_.data() + begin, batch.rows);
  batch.positions = upload(*ops_, positions_, host_positions_.data() + begin, batch.rows);
  batch.slots = upload(*ops_, slots_, host_slots_.data() + begin, batch.rows);
  batch.slices = pass_slices_.data();
  batch.slice_count = int(pass_slices_.size());
  Step step{*ops_, work_, cache_, rope_, batch};
  model_->forward(step);
  evaluate_wanted(step, begin, end);
}

void Engine::collect_wanted(const std::vector<ForwardSlice>& slices) {
  const auto resize = [](Report& report, const ReportSpec& spec, int rows) {
    report.logprobs.assign(rows, NAN);
    report.top_logprobs.resize(size_t(rows) * spec.top);
    report.top_ids.resize(size_t(rows) * spec.top);
    report.token_id_logprobs.resize(size_t(rows) * spec.token_id_count);
  };
  wanted_.clear();
  next_wanted_ = 0;
  for (size_t i = 0; i < slices.size(); ++i) {
    const ForwardSlice& slice = slices[i];
    const int first = slices_[i].first_row;
    if (slice.score) {
      const ScoreSpec& score = *slice.score;
      resize(results_[i].scored.emplace(), score.report, score.target_count);
      for (int t = 0; t < score.target_count; ++t) {
        WantedRow wanted;
        wanted.request.target = score.targets[t];
        want(first + score.first_row + t, slice, score.report, t, *results_[i].scored, wanted);
      }
    }
    if (slice.sample) {
      resize(results_[i].sampled.emplace(), slice.sample->report, 1);
      WantedRow wanted;
      wanted.request.sample = &slice.sample->args;
      wanted.request.sampled_logprob = slice.sample->logprob;
      wanted.token = &results_[i].token;
      want(first + slice.token_count - 1, slice, slice.sample->report, 0, *results_[i].sampled, wanted);
    }
  }
}

void Engine::want(int row, const ForwardSlice& slice, const ReportSpec& spec, int index, Report& report,
                  WantedRow wanted) {
  wanted.row = row;
  wanted.logprob = report.logprobs.data() + index;
  RowRequest& request = wanted.request;
  request.logprob_temperature = slice.logprob_temperature;
  request.top = spec.top;
  request.token_ids = spec.token_ids;
  request.token_id_count = spec.token_id_count;
  request.top_logprobs = report.top_logprobs.data() + int64_t(index) * spec.top;
  request.top_ids = report.top_ids.data() + int64_t(index) * spec.top;
  request.token_id_logprobs = report.token_id_logprobs.data() + int64_t(index) * spec.token_id_count;
  wanted_.push_back(wanted);
}

void Engine::evaluate_wanted(Step& step, int begin, int end) {
  // Wanted rows are in the order of rows, so those of a pass are the next ones.
  const int vocab = model_->vocab_size();
  const size_t limit = size_t(std::max<int64_t>(1, kLogitsBytes / (int64_t(vocab) * int64_t(sizeof(float)))));
  const auto more = [&] { return next_wanted_ < wanted_.size() && wanted_[next_wanted_].row < end; };
  while (more()) {
    const size_t first = next_wanted_;
    host_rows_.clear();
    requests_.clear();
    for (; more() && requests_.size() < limit; ++next_wanted_) {
      host_rows_.push_back(wanted_[next_wanted_].row - begin);
      requests_.push_back(wanted_[next_wanted_].request);
    }
    const int count = int(requests_.size());
    float* const logits = logits_.reserve(*ops_, size_t(count) * vocab);
    model_->logits(step, upload(*ops_, rows_, host_rows_.data(), host_rows_.size()), count, logits);
    ops_->evaluate_rows(logits, count, vocab, requests_.data());
    for (int i = 0; i < count; ++i) {
      *wanted_[first + i].logprob = requests_[i].logprob;
      if (wanted_[first + i].token) *wanted_[first + i].token = requests_[i].token;
    }
  }
}

int64_t Engine::weight_bytes() const { return detinfer::weight_bytes(parameters_); }

int64_t Engine::weight_bytes_per_token() const {
  int64_t bytes = 0;
  for (const MatrixParameter* matrix : parameters_.matrices) bytes += matrix->value->bytes();
  for (const VectorParameter* vector : parameters_.vectors) bytes += vector->spec.elements() * int64_t(sizeof(bf16));
  return bytes - model_->unread_bytes();
}

int64_t Engine::kv_bytes_per_token() const {
  const KvLayout layout = model_->kv_layout();
  return int64_t(2) * model_->layers() * layout.kv_heads * layout.head_dim * int64_t(sizeof(bf16));
}

}  // namespace detinfer
