#include "addon/convert.h"

namespace detinfer {
namespace {

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

Napi::Object to_report_object(Napi::Env env, const Report& report) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("logprobs", to_array<Napi::Float32Array>(env, report.logprobs));
  object.Set("topLogprobs", to_array<Napi::Float32Array>(env, report.top_logprobs));
  object.Set("topIds", to_array<Napi::Int32Array>(env, report.top_ids));
  object.Set("tokenIdLogprobs", to_array<Napi::Float32Array>(env, report.token_id_logprobs));
  return object;
}

/// Deeper than any key that is read, and far from the end of the stack.
constexpr int kMaxConfigDepth = 32;

void flatten(const std::string& key, const Napi::Value& value, int depth, ConfigMap& config) {
  if (value.IsBoolean()) {
    config.set(key, value.As<Napi::Boolean>().Value());
  } else if (value.IsNumber()) {
    config.set(key, value.As<Napi::Number>().DoubleValue());
  } else if (value.IsString()) {
    config.set(key, value.As<Napi::String>().Utf8Value());
  } else if (value.IsObject()) {
    if (depth > kMaxConfigDepth) {
      throw Error(ErrorCode::kInvalidModel, "config.json: " + key.substr(0, key.find('.')) + " is nested more than " +
                                                std::to_string(kMaxConfigDepth) + " deep");
    }
    const Napi::Object object = value.As<Napi::Object>();
    const Napi::Array names = object.GetPropertyNames();
    for (uint32_t i = 0; i < names.Length(); ++i) {
      const std::string name = names.Get(i).ToString();
      flatten(key.empty() ? name : key + "." + name, object.Get(name), depth + 1, config);
    }
  }
}

}  // namespace

ConfigMap to_config(const Napi::Object& object) {
  ConfigMap config;
  flatten("", object, 0, config);
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

Napi::Object to_results(Napi::Env env, const std::vector<SliceResult>& results) {
  Napi::Int32Array tokens = Napi::Int32Array::New(env, results.size());
  Napi::Array reports = Napi::Array::New(env);
  for (size_t i = 0; i < results.size(); ++i) {
    const SliceResult& result = results[i];
    tokens[i] = result.token;
    if (!result.sampled && !result.scored) continue;
    Napi::Object report = Napi::Object::New(env);
    report.Set("slice", double(i));
    if (result.sampled) report.Set("sampled", to_report_object(env, *result.sampled));
    if (result.scored) report.Set("scored", to_report_object(env, *result.scored));
    reports.Set(reports.Length(), report);
  }
  Napi::Object object = Napi::Object::New(env);
  object.Set("tokens", tokens);
  object.Set("reports", reports);
  return object;
}

}  // namespace detinfer
