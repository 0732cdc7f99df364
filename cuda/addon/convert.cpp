#include "addon/convert.h"

namespace detinfer {
namespace {

/// The elements of a typed array.
template <class T>
struct Span {
  const T* data = nullptr;
  int count = 0;
};

[[noreturn]] void wrong_type(Napi::Env env, const char* key, const char* wanted) {
  throw Napi::TypeError::New(env, std::string(key) + " must be " + wanted);
}

double number(const Napi::Object& object, const char* key) {
  const Napi::Value value = object.Get(key);
  if (!value.IsNumber()) wrong_type(object.Env(), key, "a number");
  return value.As<Napi::Number>().DoubleValue();
}

int integer(const Napi::Object& object, const char* key) {
  const Napi::Value value = object.Get(key);
  if (!value.IsNumber()) wrong_type(object.Env(), key, "a number");
  return value.As<Napi::Number>().Int32Value();
}

bool flag(const Napi::Object& object, const char* key) {
  const Napi::Value value = object.Get(key);
  if (!value.IsBoolean()) wrong_type(object.Env(), key, "a boolean");
  return value.As<Napi::Boolean>().Value();
}

Span<int32_t> integers(const Napi::Object& object, const char* key) {
  const Napi::Value value = object.Get(key);
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != napi_int32_array) {
    wrong_type(object.Env(), key, "an Int32Array");
  }
  const auto array = value.As<Napi::Int32Array>();
  return {array.Data(), int(array.ElementLength())};
}

Span<float> floats(const Napi::Object& object, const char* key) {
  const Napi::Value value = object.Get(key);
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != napi_float32_array) {
    wrong_type(object.Env(), key, "a Float32Array");
  }
  const auto array = value.As<Napi::Float32Array>();
  return {array.Data(), int(array.ElementLength())};
}

Span<uint32_t> bit_words(const Napi::Object& object, const char* key) {
  const Napi::Value value = object.Get(key);
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != napi_uint32_array) {
    wrong_type(object.Env(), key, "a Uint32Array");
  }
  const auto array = value.As<Napi::Uint32Array>();
  return {array.Data(), int(array.ElementLength())};
}

void require_equal_lengths(Napi::Env env, int a, int b, const char* what) {
  if (a != b) throw Napi::TypeError::New(env, std::string(what) + " must be of equal length");
}

ReportSpec to_report(const Napi::Object& object) {
  const Span<int32_t> ids = integers(object, "tokenIds");
  return {integer(object, "top"), ids.data, ids.count};
}

ScoreSpec to_score(const Napi::Object& object) {
  const Span<int32_t> targets = integers(object, "targets");
  return {integer(object, "firstRow"), targets.data, targets.count, to_report(object)};
}

PenaltyArgs to_penalties(const Napi::Object& object) {
  const Span<int32_t> ids = integers(object, "ids"), counts = integers(object, "counts");
  require_equal_lengths(object.Env(), ids.count, counts.count, "ids and counts");
  return {float(number(object, "frequency")), float(number(object, "presence")), float(number(object, "repetition")),
          ids.data, counts.data, ids.count};
}

SampleSpec to_sample(const Napi::Object& object) {
  SampleSpec spec;
  spec.args.greedy = flag(object, "greedy");
  spec.args.temperature = float(number(object, "temperature"));
  spec.args.top_k = int64_t(number(object, "topK"));
  spec.args.top_p = number(object, "topP");
  spec.args.min_p = number(object, "minP");
  spec.args.key = {uint32_t(int64_t(number(object, "seedLow"))), uint32_t(int64_t(number(object, "seedHigh"))),
                   uint32_t(int64_t(number(object, "position")))};
  const Span<int32_t> ids = integers(object, "biasIds");
  const Span<float> values = floats(object, "biasValues");
  require_equal_lengths(object.Env(), ids.count, values.count, "biasIds and biasValues");
  spec.args.bias_ids = ids.data;
  spec.args.bias_values = values.data;
  spec.args.bias_count = ids.count;
  const Napi::Value penalties = object.Get("penalties");
  if (penalties.IsObject()) spec.args.penalties = to_penalties(penalties.As<Napi::Object>());
  const Napi::Value allowed = object.Get("allowed");
  if (!allowed.IsNull()) {
    const Span<uint32_t> words = bit_words(object, "allowed");
    spec.args.allowed = words.data;
    spec.allowed_words = words.count;
  }
  spec.logprob = flag(object, "logprob");
  spec.report = to_report(object);
  return spec;
}

ForwardSlice to_slice(const Napi::Object& object) {
  const Span<int32_t> tokens = integers(object, "tokens"), pages = integers(object, "pages");
  ForwardSlice slice;
  slice.tokens = tokens.data;
  slice.token_count = tokens.count;
  slice.start = integer(object, "start");
  slice.pages = pages.data;
  slice.page_count = pages.count;
  slice.logprob_temperature = float(number(object, "logprobTemperature"));
  const Napi::Value score = object.Get("score"), sample = object.Get("sample");
  if (score.IsObject()) slice.score = to_score(score.As<Napi::Object>());
  if (sample.IsObject()) slice.sample = to_sample(sample.As<Napi::Object>());
  return slice;
}

template <class Array, class T>
Array to_array(Napi::Env env, const std::vector<T>& values) {
  Array array = Array::New(env, values.size());
  std::copy(values.begin(), values.end(), array.Data());
  return array;
}

Napi::Object to_report_object(Napi::Env env, const Report& report) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("logprobs", to_array<Napi::Float32Array>(env, report.logprobs));
  object.Set("topLogprobs", to_array<Napi::Float32Array>(env, report.top_logprobs));
  object.Set("topIds", to_array<Napi::Int32Array>(env, report.top_ids));
  object.Set("tokenIdLogprobs", to_array<Napi::Float32Array>(env, report.token_id_logprobs));
  return object;
}

void flatten(const std::string& key, const Napi::Value& value, ConfigMap& config) {
  if (value.IsBoolean()) {
    config.set(key, value.As<Napi::Boolean>().Value());
  } else if (value.IsNumber()) {
    config.set(key, value.As<Napi::Number>().DoubleValue());
  } else if (value.IsString()) {
    config.set(key, value.As<Napi::String>().Utf8Value());
  } else if (value.IsObject()) {
    const Napi::Object object = value.As<Napi::Object>();
    const Napi::Array names = object.GetPropertyNames();
    for (uint32_t i = 0; i < names.Length(); ++i) {
      const std::string name = names.Get(i).ToString();
      flatten(key.empty() ? name : key + "." + name, object.Get(name), config);
    }
  }
}

}  // namespace

ConfigMap to_config(const Napi::Object& object) {
  ConfigMap config;
  flatten("", object, config);
  return config;
}

std::vector<std::string> to_files(const Napi::Object& weights) {
  const auto files = weights.Get("files").As<Napi::Array>();
  std::vector<std::string> paths;
  for (uint32_t i = 0; i < files.Length(); ++i) paths.push_back(files.Get(i).ToString());
  return paths;
}

std::vector<SafetensorsEntry> to_entries(const Napi::Object& weights) {
  const auto tensors = weights.Get("tensors").As<Napi::Array>();
  std::vector<SafetensorsEntry> entries;
  for (uint32_t i = 0; i < tensors.Length(); ++i) {
    const Napi::HandleScope scope(weights.Env());
    const auto tensor = tensors.Get(i).As<Napi::Object>();
    const auto shape = tensor.Get("shape").As<Napi::Array>();
    SafetensorsEntry entry;
    entry.name = tensor.Get("name").ToString();
    entry.file = integer(tensor, "file");
    entry.dtype = tensor.Get("dtype").ToString();
    for (uint32_t d = 0; d < shape.Length(); ++d) entry.shape.push_back(shape.Get(d).ToNumber().Int64Value());
    entry.begin = int64_t(number(tensor, "begin"));
    entry.end = int64_t(number(tensor, "end"));
    entries.push_back(std::move(entry));
  }
  return entries;
}

std::vector<ForwardSlice> to_slices(const Napi::Array& slices) {
  std::vector<ForwardSlice> result;
  result.reserve(slices.Length());
  for (uint32_t i = 0; i < slices.Length(); ++i) result.push_back(to_slice(slices.Get(i).As<Napi::Object>()));
  return result;
}

Napi::Array to_results(Napi::Env env, const std::vector<ForwardSlice>& slices,
                       const std::vector<SliceResult>& results) {
  Napi::Array array = Napi::Array::New(env, results.size());
  for (size_t i = 0; i < results.size(); ++i) {
    Napi::Object result = Napi::Object::New(env);
    result.Set("token", Napi::Number::New(env, results[i].token));
    if (slices[i].sample) result.Set("sampled", to_report_object(env, results[i].sampled));
    if (slices[i].score) result.Set("scored", to_report_object(env, results[i].scored));
    array.Set(uint32_t(i), result);
  }
  return array;
}

}  // namespace detinfer
