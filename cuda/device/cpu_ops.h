// The operations on a CPU.
#pragma once

#include "kernels/ops.h"

namespace detinfer {

class ThreadPool;

/// @param pool outlives the result.
std::unique_ptr<Ops> make_cpu_ops(ThreadPool& pool);

}  // namespace detinfer
