// The addon's exports. lib/engine/native.ts declares their types.
#include <sys/prctl.h>

#include <csignal>

#include "addon/native_engine.h"

namespace detinfer {
namespace {

/// Has the kernel kill this process when its parent dies, whatever this process is busy with then.
void die_with_parent(const Napi::CallbackInfo&) { prctl(PR_SET_PDEATHSIG, SIGKILL); }

Napi::Object init(Napi::Env env, Napi::Object exports) {
  exports.Set("NativeEngine", NativeEngine::define(env));
  exports.Set("numericContract", Napi::String::New(env, kNumericContract));
  exports.Set("dieWithParent", Napi::Function::New(env, die_with_parent, "dieWithParent"));
  return exports;
}

}  // namespace

NODE_API_MODULE(detinfer_cpu, init)

}  // namespace detinfer
