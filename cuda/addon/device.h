// The device that an addon is for: device_cpu.cpp is built into one addon, device_cuda.cpp into the other.
#pragma once

#include <napi.h>

#include "engine/engine.h"

namespace detinfer {

/// Reads an engine's options. @throws Error kUnsupported
MakeOps device_ops(const Napi::Object& options);

/// Names of the devices that can be used, by index. @throws Error kUnsupported when the driver does not start
std::vector<std::string> device_names();

/// Bytes per second at which the first device reads its memory. @param threads of the host that read, for a CPU
double device_read_bandwidth(int threads);

}  // namespace detinfer
