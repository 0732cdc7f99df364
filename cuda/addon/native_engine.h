// The engine as a JavaScript class. lib/engine/native.ts declares its methods.
#pragma once

#include <napi.h>

#include <memory>

#include "engine/engine.h"

namespace detinfer {

class NativeEngine : public Napi::ObjectWrap<NativeEngine> {
 public:
  static Napi::Function define(Napi::Env env);

  explicit NativeEngine(const Napi::CallbackInfo& info);

 private:
  Napi::Value facts(const Napi::CallbackInfo& info);
  Napi::Value device_memory(const Napi::CallbackInfo& info);
  Napi::Value load(const Napi::CallbackInfo& info);
  void reserve(const Napi::CallbackInfo& info);
  void allocate_cache(const Napi::CallbackInfo& info);
  void submit(const Napi::CallbackInfo& info);
  Napi::Value collect(const Napi::CallbackInfo& info);
  Napi::Value logits(const Napi::CallbackInfo& info);
  void close(const Napi::CallbackInfo& info);

  /// @throws Error kEngineFailed after close()
  Engine& engine();

  std::unique_ptr<Engine> engine_;
};

}  // namespace detinfer
