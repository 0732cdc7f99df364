// Between JavaScript values and the engine's types, but for the slices of a step (step_reader.h).
#pragma once

#include <napi.h>

#include <algorithm>
#include <vector>

#include "core/config_map.h"
#include "core/error.h"
#include "engine/safetensors.h"
#include "engine/slice.h"

namespace detinfer {

/// A nested object as a flat map with dotted keys; null is left out.
ConfigMap to_config(const Napi::Object& object);

/// {files: string[], tensors: {name, file, dtype, shape, begin, end}[]}
std::vector<std::string> to_files(const Napi::Object& weights);
std::vector<SafetensorsEntry> to_entries(const Napi::Object& weights);

/// NativeResults of lib/engine/native.ts.
Napi::Object to_results(Napi::Env env, const std::vector<SliceResult>& results);

/// A typed array with the values. @tparam Array such as Napi::Float32Array
template <class Array, class T>
Array to_array(Napi::Env env, const std::vector<T>& values) {
  Array array = Array::New(env, values.size());
  std::copy(values.begin(), values.end(), array.Data());
  return array;
}

/// Runs body(); an Error leaves as a JavaScript error with the code as its `code`.
template <class Body>
auto guarded(Napi::Env env, const Body& body) -> decltype(body()) {
  const auto raise = [env](const char* code, const char* message) {
    Napi::Error error = Napi::Error::New(env, message);
    error.Set("code", Napi::String::New(env, code));
    return error;
  };
  try {
    return body();
  } catch (const Napi::Error&) {
    throw;
  } catch (const Error& error) {
    throw raise(error_name(error.code()), error.what());
  } catch (const std::bad_alloc&) {
    throw raise(error_name(ErrorCode::kOutOfMemory),
                "the host is out of memory; lower --context-length, --max-total-tokens or --max-running-requests");
  } catch (const std::exception& error) {
    throw raise(error_name(ErrorCode::kEngineFailed), error.what());
  }
}

}  // namespace detinfer
