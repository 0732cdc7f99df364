// The addon's exports. lib/engine/native.ts declares their types.
#include <sys/prctl.h>

#include <csignal>

#include "addon/convert.h"
#include "addon/native_engine.h"
#include "bench/bandwidth.h"
#include "core/cpu_isa.h"
#include "core/thread_pool.h"

namespace detinfer {
namespace {

/// Has the kernel kill this process when its parent dies, whatever this process is busy with then.
void die_with_parent(const Napi::CallbackInfo&) { prctl(PR_SET_PDEATHSIG, SIGKILL); }

/// Names of the devices that this addon can run on, by index.
Napi::Value device_names(const Napi::CallbackInfo& info) {
  Napi::Array names = Napi::Array::New(info.Env());
  names.Set(0u, Napi::String::New(info.Env(), cpu_isa_name(cpu_isa())));
  return names;
}

/// (threads): bytes per second that so many threads read from memory.
Napi::Value measure_bandwidth(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    ThreadPool pool(info[0].ToNumber().Int32Value());
    return Napi::Number::New(info.Env(), read_bandwidth(pool));
  });
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  exports.Set("NativeEngine", NativeEngine::define(env));
  exports.Set("numericContract", Napi::String::New(env, kNumericContract));
  exports.Set("dieWithParent", Napi::Function::New(env, die_with_parent, "dieWithParent"));
  exports.Set("deviceNames", Napi::Function::New(env, device_names, "deviceNames"));
  exports.Set("measureBandwidth", Napi::Function::New(env, measure_bandwidth, "measureBandwidth"));
  return exports;
}

}  // namespace

NODE_API_MODULE(detinfer_cpu, init)

}  // namespace detinfer
