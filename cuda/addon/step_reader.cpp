#include "addon/step_reader.h"

namespace detinfer {
namespace {

/// The elements of a list.
template <class T>
struct Span {
  const T* data = nullptr;
  int count = 0;
};

class StepReader {
 public:
  explicit StepReader(const Napi::Object& step) : env_(step.Env()) {
    const Napi::Value numbers = step.Get("numbers"), words = step.Get("words");
    if (!is_array(numbers, napi_float64_array) || !is_array(words, napi_int32_array)) {
      throw Napi::TypeError::New(env_, "a step is an array of doubles and one of 32-bit integers");
    }
    const auto doubles = numbers.As<Napi::Float64Array>();
    const auto integers = words.As<Napi::Int32Array>();
    numbers_ = {doubles.Data(), int(doubles.ElementLength())};
    words_ = {integers.Data(), int(integers.ElementLength())};
  }

  ForwardSlice slice() {
    ForwardSlice slice;
    const Span<int32_t> tokens = list<int32_t>();
    slice.tokens = tokens.data;
    slice.token_count = tokens.count;
    slice.start = word();
    const Span<int32_t> pages = list<int32_t>();
    slice.pages = pages.data;
    slice.page_count = pages.count;
    slice.logprob_temperature = float(number());
    if (word()) slice.score = score();
    if (word()) slice.sample = sample();
    return slice;
  }

  void end() const {
    if (numbers_.count > 0 || words_.count > 0) throw Napi::TypeError::New(env_, "a step goes on behind its slices");
  }

 private:
  static bool is_array(const Napi::Value& value, napi_typedarray_type type) {
    return value.IsTypedArray() && value.As<Napi::TypedArray>().TypedArrayType() == type;
  }

  template <class T>
  const T* take(Span<T>& from, int count) {
    if (count < 0 || count > from.count) throw Napi::TypeError::New(env_, "a step ends within a slice");
    const T* const taken = from.data;
    from.data += count;
    from.count -= count;
    return taken;
  }

  double number() { return *take(numbers_, 1); }
  int32_t word() { return *take(words_, 1); }

  /// @tparam T of 32 bits
  template <class T>
  Span<T> list() {
    const int count = word();
    return {reinterpret_cast<const T*>(take(words_, count)), count};
  }

  ReportSpec report() {
    ReportSpec spec;
    spec.top = word();
    const Span<int32_t> ids = list<int32_t>();
    spec.token_ids = ids.data;
    spec.token_id_count = ids.count;
    return spec;
  }

  ScoreSpec score() {
    ScoreSpec spec;
    spec.first_row = word();
    const Span<int32_t> targets = list<int32_t>();
    spec.targets = targets.data;
    spec.target_count = targets.count;
    spec.report = report();
    return spec;
  }

  SampleSpec sample() {
    SampleSpec spec;
    SampleArgs& args = spec.args;
    args.greedy = word();
    args.temperature = float(number());
    args.top_k = int64_t(number());
    args.top_p = number();
    args.min_p = number();
    const uint32_t seed_low = word(), seed_high = word(), position = word();
    args.key = {seed_low, seed_high, position};
    const Span<int32_t> biased = list<int32_t>();
    const Span<float> biases = list<float>();
    require_equal_lengths(biased.count, biases.count, "biasIds and biasValues");
    args.bias_ids = biased.data;
    args.bias_values = biases.data;
    args.bias_count = biased.count;
    if (word()) args.penalties = penalties();
    if (word()) {
      const Span<uint32_t> allowed = list<uint32_t>();
      args.allowed = allowed.data;
      spec.allowed_words = allowed.count;
    }
    spec.logprob = word();
    spec.report = report();
    return spec;
  }

  PenaltyArgs penalties() {
    PenaltyArgs args;
    args.frequency = float(number());
    args.presence = float(number());
    args.repetition = float(number());
    const Span<int32_t> ids = list<int32_t>(), counts = list<int32_t>();
    require_equal_lengths(ids.count, counts.count, "ids and counts");
    args.ids = ids.data;
    args.counts = counts.data;
    args.count = ids.count;
    return args;
  }

  void require_equal_lengths(int a, int b, const char* what) const {
    if (a != b) throw Napi::TypeError::New(env_, std::string(what) + " must be of equal length");
  }

  Napi::Env env_;
  Span<double> numbers_;
  Span<int32_t> words_;
};

}  // namespace

std::vector<ForwardSlice> read_step(const Napi::Object& step) {
  StepReader reader(step);
  const int count = step.Get("slices").ToNumber().Int32Value();
  std::vector<ForwardSlice> slices;
  slices.reserve(count);
  for (int i = 0; i < count; ++i) slices.push_back(reader.slice());
  reader.end();
  return slices;
}

}  // namespace detinfer
