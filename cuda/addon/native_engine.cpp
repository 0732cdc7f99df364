#include "addon/native_engine.h"

#include "addon/convert.h"
#include "addon/device.h"
#include "addon/step_reader.h"
#include "engine/dummy_weights.h"
#include "engine/safetensors.h"

namespace detinfer {

Napi::Function NativeEngine::define(Napi::Env env) {
  return DefineClass(env, "NativeEngine",
                     {InstanceMethod<&NativeEngine::facts>("facts"), InstanceMethod<&NativeEngine::load>("load"),
                      InstanceMethod<&NativeEngine::device_memory>("deviceMemory"),
                      InstanceMethod<&NativeEngine::reserve>("reserve"),
                      InstanceMethod<&NativeEngine::allocate_cache>("allocateCache"),
                      InstanceMethod<&NativeEngine::submit>("submit"),
                      InstanceMethod<&NativeEngine::collect>("collect"),
                      InstanceMethod<&NativeEngine::logits>("logits"),
                      InstanceMethod<&NativeEngine::close>("close")});
}

NativeEngine::NativeEngine(const Napi::CallbackInfo& info) : Napi::ObjectWrap<NativeEngine>(info) {
  guarded(info.Env(), [&] {
    const auto options = info[0].As<Napi::Object>();
    const Napi::Value weights = options.Get("weights");
    std::unique_ptr<WeightSource> source;
    if (weights.IsObject()) {
      const auto tables = weights.As<Napi::Object>();
      source = open_safetensors(to_files(tables), to_entries(tables));
    } else {
      source = make_dummy_weights();
    }
    const int threads = options.Get("threads").ToNumber().Int32Value();
    engine_ = std::make_unique<Engine>(to_config(options.Get("config").As<Napi::Object>()), std::move(source), threads,
                                       device_ops(options));
  });
}

Engine& NativeEngine::engine() {
  if (!engine_) throw Error(ErrorCode::kEngineFailed, "the engine is closed");
  return *engine_;
}

Napi::Value NativeEngine::facts(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    const Engine& engine = this->engine();
    Napi::Object facts = Napi::Object::New(info.Env());
    facts.Set("deviceName", engine.device_name());
    facts.Set("threads", engine.threads());
    facts.Set("vocabSize", engine.model().vocab_size());
    facts.Set("maxPositions", engine.model().max_positions());
    facts.Set("weightBytes", double(engine.weight_bytes()));
    facts.Set("kvBytesPerToken", double(engine.kv_bytes_per_token()));
    return facts;
  });
}

Napi::Value NativeEngine::device_memory(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const DeviceMemory memory = engine().device_memory();
    if (memory.total == 0) return info.Env().Null();
    Napi::Object object = Napi::Object::New(info.Env());
    object.Set("total", double(memory.total));
    object.Set("free", double(memory.free));
    return object;
  });
}

Napi::Value NativeEngine::load(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    const auto progress = info[0].As<Napi::Function>();
    engine().load([&](int64_t done, int64_t total) {
      progress.Call({Napi::Number::New(info.Env(), double(done)), Napi::Number::New(info.Env(), double(total))});
    });
    return Napi::Number::New(info.Env(), double(engine().weight_bytes_per_token()));
  });
}

void NativeEngine::reserve(const Napi::CallbackInfo& info) {
  guarded(info.Env(), [&] { engine().reserve(info[0].ToNumber().Int32Value(), info[1].ToNumber().Int32Value()); });
}

void NativeEngine::allocate_cache(const Napi::CallbackInfo& info) {
  guarded(info.Env(), [&] {
    const int page_size = info[0].ToNumber().Int32Value();
    const int64_t pages = info[1].ToNumber().Int64Value();
    engine().allocate_cache(page_size, pages, info[2].ToNumber().Int32Value());
  });
}

void NativeEngine::submit(const Napi::CallbackInfo& info) {
  guarded(info.Env(), [&] { engine().submit(read_step(info[0].As<Napi::Object>())); });
}

Napi::Value NativeEngine::collect(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] { return to_results(info.Env(), engine().collect()); });
}

Napi::Value NativeEngine::logits(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    return to_array<Napi::Float32Array>(info.Env(), engine().logits(read_step(info[0].As<Napi::Object>())));
  });
}

void NativeEngine::close(const Napi::CallbackInfo&) { engine_.reset(); }

}  // namespace detinfer
