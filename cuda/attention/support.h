// What each backend of attention can do, known before anything is loaded.
#pragma once

#include <string>
#include <vector>

#include "kernels/attention/attention_cuda.h"

namespace detinfer {

/// Names of the backends, in the order in which they are listed to users.
std::vector<std::string> attention_backend_names();

/// @param heads query heads
/// @throws Error kUnsupported for an unknown name, naming the known ones, and for what the backend can't do
void check_attention_backend(const std::string& name, const PagedKvLayout& kv, int heads);

}  // namespace detinfer
