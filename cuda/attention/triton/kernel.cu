#include "attention/triton/kernel.cuh"

namespace detinfer::triton {
namespace {

const CompiledKernel& find(const std::string& name) {
  for (size_t i = 0; i < kCompiledKernelCount; ++i) {
    if (name == kCompiledKernels[i].name) return kCompiledKernels[i];
  }
  throw Error(ErrorCode::kEngineFailed, "there is no compiled Triton kernel " + name);
}

}  // namespace

Kernel::Kernel(const std::string& name) : compiled_(find(name)) {
  static const auto load = driver_function<decltype(&cuModuleLoadData)>("cuModuleLoadData");
  static const auto get = driver_function<decltype(&cuModuleGetFunction)>("cuModuleGetFunction");
  static const auto set = driver_function<decltype(&cuFuncSetAttribute)>("cuFuncSetAttribute");
  CUDA_CHECK(cudaFree(nullptr));  // makes the device's context current, which modules belong to
  check_driver(load(&module_, compiled_.cubin), "cuModuleLoadData");
  check_driver(get(&function_, module_, compiled_.function), "cuModuleGetFunction");
  check_driver(set(function_, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, compiled_.shared_bytes),
               "cuFuncSetAttribute");
}

Kernel::~Kernel() {
  static const auto unload = driver_function<decltype(&cuModuleUnload)>("cuModuleUnload");
  unload(module_);
}

int Kernel::programs_per_multiprocessor() const {
  static const auto ask = driver_function<decltype(&cuOccupancyMaxActiveBlocksPerMultiprocessor)>(
      "cuOccupancyMaxActiveBlocksPerMultiprocessor");
  int programs = 0;
  check_driver(ask(&programs, function_, compiled_.warps * 32, size_t(compiled_.shared_bytes)),
               "cuOccupancyMaxActiveBlocksPerMultiprocessor");
  return programs;
}

void Kernel::check_types(const std::string& types) const {
  if (types == compiled_.arguments) return;
  throw Error(ErrorCode::kEngineFailed, std::string("Triton kernel ") + compiled_.name + " takes arguments of types " +
                                            compiled_.arguments + ", not " + types);
}

void Kernel::launch_with(int programs, cudaStream_t stream, void** arguments) const {
  static const auto start = driver_function<decltype(&cuLaunchKernelEx)>("cuLaunchKernelEx");
  CUlaunchAttribute attribute = {};
  attribute.id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
  attribute.value.programmaticStreamSerializationAllowed = 1;
  CUlaunchConfig config = {};
  config.gridDimX = programs;
  config.gridDimY = config.gridDimZ = 1;
  config.blockDimX = compiled_.warps * 32;
  config.blockDimY = config.blockDimZ = 1;
  config.sharedMemBytes = compiled_.shared_bytes;
  config.hStream = stream;
  config.attrs = &attribute;
  config.numAttrs = 1;
  check_driver(start(&config, function_, arguments, nullptr), "cuLaunchKernelEx");
}

}  // namespace detinfer::triton
