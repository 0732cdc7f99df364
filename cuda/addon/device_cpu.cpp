#include "addon/device.h"
#include "core/cpu_isa.h"
#include "device/cpu_bandwidth.h"
#include "device/cpu_ops.h"

namespace detinfer {

MakeOps device_ops(const Napi::Object&) { return make_cpu_ops; }

std::vector<std::string> device_names() { return {cpu_isa_name(cpu_isa())}; }

double device_read_bandwidth(int threads) {
  ThreadPool pool(threads);
  return read_bandwidth(pool);
}

}  // namespace detinfer
