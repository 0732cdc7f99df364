// The addon's exports. lib/engine/native.ts declares their types.
#include "addon/convert.h"
#include "addon/device.h"
#include "addon/native_engine.h"

namespace detinfer {
namespace {

/// Names of the devices that this addon can run on, by index.
Napi::Value names_of_devices(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    Napi::Array names = Napi::Array::New(info.Env());
    for (const std::string& name : device_names()) names.Set(names.Length(), Napi::String::New(info.Env(), name));
    return names;
  });
}

/// (threads): bytes per second that the first device, or so many threads of the host, read from memory.
Napi::Value measure_bandwidth(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    return Napi::Number::New(info.Env(), device_read_bandwidth(info[0].ToNumber().Int32Value()));
  });
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  exports.Set("NativeEngine", NativeEngine::define(env));
  exports.Set("numericContract", Napi::String::New(env, kNumericContract));
  exports.Set("deviceNames", Napi::Function::New(env, names_of_devices, "deviceNames"));
  exports.Set("measureBandwidth", Napi::Function::New(env, measure_bandwidth, "measureBandwidth"));
  return exports;
}

}  // namespace

NODE_API_MODULE(NODE_GYP_MODULE_NAME, init)

}  // namespace detinfer
