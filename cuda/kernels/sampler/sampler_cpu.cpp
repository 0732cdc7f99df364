#include <algorithm>
#include <limits>
#include <vector>

#include "core/error.h"
#include "core/per_isa.h"
#include "core/thread_pool.h"
#include "kernels/sampler/adjust.h"
#include "kernels/sampler/chunks.h"

namespace detinfer {
namespace {

void divide(const float* x, int n, float divisor, float* y) {
  for (int i = 0; i < n; ++i) y[i] = x[i] / divisor;
}

float divided(float x, float divisor) { return divisor == 1.0f ? x : x / divisor; }

/// Buffers of a thread, kept between calls.
struct Scratch {
  std::vector<float> scaled;
  std::vector<float> adjusted;
  std::vector<float> weights;
  std::vector<RankedToken> top;
};

class RowEvaluator {
 public:
  /// @param pool null: the caller works alone
  RowEvaluator(ThreadPool* pool, const float* logits, int n, Scratch& scratch)
      : pool_(pool), logits_(logits), n_(n), scratch_(scratch), range_(range_cpu(pool, logits, n)) {
    if (!range_.finite) throw Error(ErrorCode::kEngineFailed, "the model computed a logit that is not finite");
  }

  void evaluate(RowRequest& request) {
    const bool reports =
        request.target >= 0 || request.sampled_logprob || request.top > 0 || request.token_id_count > 0;
    const float temperature = request.logprob_temperature;
    Softmax softmax;
    if (reports) {
      const float* x = scaled(logits_, temperature);
      softmax = softmax_cpu(pool_, x, n_, divided(range_.max, temperature), nullptr);
      report(request, x, softmax);
    }
    if (!request.sample) return;
    request.token = draw(*request.sample);
    if (request.sampled_logprob) request.logprob = softmax.logprob(divided(logits_[request.token], temperature));
  }

 private:
  const float* scaled(const float* x, float temperature) {
    if (temperature == 1.0f) return x;
    scratch_.scaled.resize(n_);
    float* y = scratch_.scaled.data();
    for_chunks<int>(pool_, n_, [=](int begin, int end) {
      run_per_isa<divide>(x + begin, end - begin, temperature, y + begin);
      return 0;
    });
    return y;
  }

  void report(RowRequest& request, const float* x, const Softmax& softmax) {
    if (request.target >= 0) request.logprob = softmax.logprob(x[request.target]);
    top_tokens(x, n_, request.top, scratch_.top);
    for (int i = 0; i < request.top; ++i) {
      request.top_ids[i] = scratch_.top[i].id;
      request.top_logprobs[i] = softmax.logprob(scratch_.top[i].value);
    }
    for (int i = 0; i < request.token_id_count; ++i) {
      request.token_id_logprobs[i] = softmax.logprob(x[request.token_ids[i]]);
    }
  }

  int32_t draw(const SampleArgs& args) {
    const float* x = logits_;
    Range range = range_;
    if (args.adjusts()) {
      scratch_.adjusted.assign(logits_, logits_ + n_);
      adjust_logits(args, n_, scratch_.adjusted.data());
      x = scratch_.adjusted.data();
      range = range_cpu(pool_, x, n_);
    }
    if (args.greedy || range.max == -std::numeric_limits<float>::infinity()) return argmax_cpu(pool_, x, n_);

    // Division by a positive number keeps the order, and so the bounds.
    x = scaled(x, args.temperature);
    range = {divided(range.min, args.temperature), divided(range.max, args.temperature), range.finite};
    const bool cuts = (args.top_k >= 0 && args.top_k < n_) || args.top_p < 1.0;
    float* weights = nullptr;
    if (cuts) {
      scratch_.weights.resize(n_);
      weights = scratch_.weights.data();
    }
    const Softmax softmax = softmax_cpu(pool_, x, n_, range.max, weights);
    if (!cuts && args.min_p <= 0.0) return draw_cpu(pool_, x, n_, softmax, args.key, nullptr);
    DrawFilter filter{{-std::numeric_limits<float>::infinity(), n_}, min_p_mass(args.min_p)};
    if (cuts) {
      const int64_t top_k = args.top_k < 0 ? n_ : std::min<int64_t>(args.top_k, n_);
      filter.last = last_kept(x, weights, n_, range, top_k, top_p_limit(args.top_p, softmax.total));
    }
    return draw_cpu(pool_, x, n_, softmax, args.key, &filter);
  }

  ThreadPool* pool_;
  const float* logits_;
  int n_;
  Scratch& scratch_;
  Range range_;
};

}  // namespace

void evaluate_rows_cpu(ThreadPool& pool, const float* logits, int rows, int n, RowRequest* requests) {
  if (rows < pool.threads()) {
    static thread_local Scratch scratch;
    for (int row = 0; row < rows; ++row) {
      RowEvaluator(&pool, logits + int64_t(row) * n, n, scratch).evaluate(requests[row]);
    }
    return;
  }
  pool.parallel_for(rows, 1, [=](int64_t begin, int64_t end) {
    static thread_local Scratch scratch;
    for (int64_t row = begin; row < end; ++row) {
      RowEvaluator(nullptr, logits + row * n, n, scratch).evaluate(requests[row]);
    }
  });
}

}  // namespace detinfer
