#include "engine/engine.h"

#include <algorithm>
#include <cstring>

#include "core/error.h"
#include "engine/loader.h"

namespace detinfer {
namespace {

/// Logits of so many bytes are made and evaluated at a time, so that a long prompt's never lie in memory at once.
constexpr int64_t kLogitsBytes = 32 << 20;
/// Splits that are decoded in one pass, which bounds the memory of their partial results.
constexpr int64_t kDecodeSplits = 8192;
/// Bytes of a row's inputs: slot, token and position.
constexpr size_t kInputBytes = sizeof(int64_t) + 2 * sizeof(int32_t);

}  // namespace

Engine::Engine(const ConfigMap& config, std::unique_ptr<WeightSource> weights, int threads, const MakeOps& make_ops)
    : pool_(threads), ops_(make_ops(pool_)), model_(make_model(config)), weights_(std::move(weights)) {
  ops_->check_attention(model_->heads(), model_->kv_layout());
  model_->collect(parameters_);
  check_parameters(parameters_, *weights_);
}

void Engine::load(const std::function<void(int64_t, int64_t)>& progress) {
  load_parameters(parameters_, *weights_, pool_, *ops_, progress);
  weights_.reset();
}

void Engine::reserve(int step_rows, int step_slices) {
  if (step_rows < 1 || step_slices < 1) throw Error(ErrorCode::kInvalidRequest, "a step needs at least one row");
  const std::vector<int>& repeated = ops_->repeated_rows();
  const int most_repeated = repeated.empty() ? 1 : repeated.back();
  const int64_t row_bytes = int64_t(model_->vocab_size()) * int64_t(sizeof(float));
  limits_.rows = std::max(std::min(step_rows, ops_->pass_rows()), most_repeated);
  limits_.slices = step_slices;
  limits_.logits_rows = std::max(int(std::max<int64_t>(1, kLogitsBytes / row_bytes)), most_repeated);
  model_->declare(work_);
  work_.allocate(*ops_, limits_);
  inputs_ = DeviceArray<char>(*ops_, limits_.rows * kInputBytes);
  rows_ = DeviceArray<int32_t>(*ops_, limits_.logits_rows);
  drawn_ = DeviceArray<int32_t>(*ops_, step_slices);
  newly_drawn_ = DeviceArray<int32_t>(*ops_, step_slices);
  logits_ = DeviceArray<float>(*ops_, size_t(limits_.logits_rows) * model_->vocab_size());
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
  const auto upload = [&](DeviceArray<float>& to, const std::vector<float>& from) {
    to = DeviceArray<float>(*ops_, from.size());
    ops_->upload(to.data(), from.data(), from.size() * sizeof(float));
  };
  upload(rope_.cos, cos);
  upload(rope_.sin, sin);

  const int splits_per_slice = (context_length + kSplitKeys - 1) / kSplitKeys;
  limits_.decode_splits = int(std::max<int64_t>(
      splits_per_slice, std::min<int64_t>(kDecodeSplits, int64_t(limits_.slices) * splits_per_slice)));
  PassShape shape;
  shape.limits = limits_;
  shape.vocab = model_->vocab_size();
  shape.heads = model_->heads();
  shape.kv = layout;
  shape.pages = cache_.pool_pages();
  shape.pages_per_slice = (context_length + page_size - 1) / page_size;
  ops_->prepare(shape);
  record_passes();
}

void Engine::submit(const std::vector<ForwardSlice>& slices) {
  if (submitted_ - collected_ == kMaxUnderWay) {
    throw Error(ErrorCode::kInvalidRequest, "two steps are under way; collect one first");
  }
  check(slices);
  Submission& step = submissions_[submitted_ % kMaxUnderWay];
  step.start(slices, cache_.layout().page_size);
  for (Pass pass; step.next_pass(limits_, pass);) run_pass(step, pass);
  // Not at once, because a later pass may still read what the step before drew.
  ops_->copy(drawn_.data(), newly_drawn_.data(), slices.size() * sizeof(int32_t));
  step.mark = ops_->mark();
  ++submitted_;
}

const std::vector<SliceResult>& Engine::collect() {
  if (submitted_ == collected_) throw Error(ErrorCode::kInvalidRequest, "no step is under way");
  Submission& step = submissions_[collected_++ % kMaxUnderWay];
  ops_->wait(step.mark);
  return step.finish(*ops_);
}

void Engine::check(const std::vector<ForwardSlice>& slices) const {
  if (cache_.pages() == 0) throw Error(ErrorCode::kInvalidRequest, "the KV cache is not allocated");
  if (slices.size() > drawn_.size()) {
    throw Error(ErrorCode::kInvalidRequest, "a step may have at most " + std::to_string(drawn_.size()) + " slices");
  }
  SliceLimits limits{model_->vocab_size(), context_length_, cache_.layout().page_size, cache_.pages(), {}};
  if (submitted_ > 0) {
    const Submission& before = submissions_[(submitted_ - 1) % kMaxUnderWay];
    limits.is_drawn = [&before](int slice) { return slice < before.slice_count() && before.draws(slice); };
  }
  check_slices(slices, limits);
}

/// Sends a pass's inputs to the device. @param rows at least those of the pass; those behind are padding
Batch Engine::start_pass(const Submission& step, const Pass& pass, int rows) {
  ops_->plan_attention(pass.slices.data(), int(pass.slices.size()));
  const size_t count = size_t(pass.end - pass.begin);
  host_inputs_.resize(rows * kInputBytes);
  auto* const slots = reinterpret_cast<int64_t*>(host_inputs_.data());
  auto* const tokens = reinterpret_cast<int32_t*>(slots + rows);
  int32_t* const positions = tokens + rows;
  std::copy_n(step.slots.data() + pass.begin, count, slots);
  std::copy_n(step.tokens.data() + pass.begin, count, tokens);
  std::copy_n(step.positions.data() + pass.begin, count, positions);
  std::fill(slots + count, slots + rows, cache_.padding_slot());
  std::fill(tokens + count, tokens + rows, 0);
  std::fill(positions + count, positions + rows, 0);
  ops_->upload(inputs_.data(), host_inputs_.data(), host_inputs_.size());

  const auto on_device = [this](const void* host) {
    return inputs_.data() + (static_cast<const char*>(host) - host_inputs_.data());
  };
  Batch batch;
  batch.rows = rows;
  batch.slots = reinterpret_cast<const int64_t*>(on_device(slots));
  batch.tokens = reinterpret_cast<const int32_t*>(on_device(tokens));
  batch.positions = reinterpret_cast<const int32_t*>(on_device(positions));
  batch.drawn = drawn_.data();
  return batch;
}

void Engine::run_pass(Submission& step, const Pass& pass) {
  const int rows = pass.end - pass.begin;
  if (pass.only_decodes) {
    const int wanted = step.wanted_count(pass.end, limits_.logits_rows + 1);
    for (int repeated : ops_->repeated_rows()) {
      if (repeated >= std::max(rows, wanted)) return run_repeated(step, pass, repeated);
    }
  }
  const Batch batch = start_pass(step, pass, rows);
  Step work{*ops_, work_, cache_, rope_, batch};
  model_->forward(work);
  while (const int count = step.wanted_count(pass.end, limits_.logits_rows)) {
    const int call = ops_->request_rows(take_wanted(step, pass, count, count), count);
    model_->logits(work, rows_.data(), count, logits_.data());
    ops_->evaluate_rows(logits_.data(), count, newly_drawn_.data());
    step.requested(call, count);
  }
}

/// Takes the next wanted rows and sends their places in the pass to the device, padded to `rows`.
RowRequest* Engine::take_wanted(Submission& step, const Pass& pass, int count, int rows) {
  RowRequest* const requests = step.take_wanted(count, pass.begin, host_rows_);
  host_rows_.resize(rows, 0);
  ops_->upload(rows_.data(), host_rows_.data(), host_rows_.size() * sizeof(int32_t));
  return requests;
}

std::vector<float> Engine::logits(const std::vector<ForwardSlice>& slices) {
  if (submitted_ != collected_) throw Error(ErrorCode::kInvalidRequest, "a step is under way; collect it first");
  check(slices);
  Submission step;
  step.start(slices, cache_.layout().page_size);
  std::vector<float> all;
  for (Pass pass; step.next_pass(limits_, pass);) {
    const Batch batch = start_pass(step, pass, pass.end - pass.begin);
    Step work{*ops_, work_, cache_, rope_, batch};
    model_->forward(work);
    while (const int count = step.wanted_count(pass.end, limits_.logits_rows)) {
      take_wanted(step, pass, count, count);
      model_->logits(work, rows_.data(), count, logits_.data());
      const size_t before = all.size(), added = size_t(count) * model_->vocab_size();
      all.resize(before + added);
      ops_->download(all.data() + before, logits_.data(), added * sizeof(float));
    }
    ops_->mark();
  }
  return all;
}

/// A pass of decodes, padded to `rows`, in a form that can be recorded.
void Engine::run_repeated(Submission& step, const Pass& pass, int rows) {
  const int wanted = step.wanted_count(pass.end, rows);
  const Batch batch = start_pass(step, pass, rows);
  const int call = ops_->request_rows(take_wanted(step, pass, wanted, rows), wanted);
  ops_->repeat(rows, [&] {
    Step work{*ops_, work_, cache_, rope_, batch};
    model_->forward(work);
    model_->logits(work, rows_.data(), rows, logits_.data());
    ops_->evaluate_rows(logits_.data(), rows, newly_drawn_.data());
  });
  step.requested(call, wanted);
}

/// Runs every pass that can be recorded once, over padding, so that no request waits for a recording.
void Engine::record_passes() {
  const int32_t page = int32_t(cache_.pages());
  for (int rows : ops_->repeated_rows()) {
    Submission step;
    const int32_t token = 0;
    ForwardSlice slice;
    slice.tokens = &token;
    slice.token_count = 1;
    slice.pages = &page;
    slice.page_count = 1;
    step.start({slice}, cache_.layout().page_size);
    Pass pass;
    step.next_pass(limits_, pass);
    run_repeated(step, pass, rows);
    ops_->wait(ops_->mark());
    step.finish(*ops_);
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
