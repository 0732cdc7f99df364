#include "addon/device.h"
#include "device/cuda_ops.h"

namespace detinfer {

MakeOps device_ops(const Napi::Object& options) {
  const auto given = options.Get("cuda").As<Napi::Object>();
  CudaOptions cuda;
  cuda.device = given.Get("device").ToNumber().Int32Value();
  cuda.attention_backend = given.Get("attentionBackend").ToString();
  cuda.graph_max_batch = given.Get("graphMaxBatch").ToNumber().Int32Value();
  return [cuda](ThreadPool&) { return make_cuda_ops(cuda); };
}

std::vector<std::string> device_names() { return cuda_device_names(); }

double device_read_bandwidth(int) { return cuda_read_bandwidth(0); }

}  // namespace detinfer
