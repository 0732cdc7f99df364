// From declared parameters to weights on the device.
#pragma once

#include <functional>

#include "engine/weight_source.h"

namespace detinfer {

/// Bytes of all tensors in bfloat16.
int64_t weight_bytes(const ParameterList& parameters);

/// Checks every tensor, before anything is allocated. @throws Error kInvalidWeights, kUnsupported for too large a matrix
void check_parameters(const ParameterList& parameters, const WeightSource& source);

/// Reads and packs every parameter. @param progress called with the bytes done and the total, after each parameter
void load_parameters(const ParameterList& parameters, const WeightSource& source, ThreadPool& pool, Ops& ops,
                     const std::function<void(int64_t, int64_t)>& progress);

}  // namespace detinfer
