// The slices of a step, which lib/engine/step-writer.ts writes one after another into two arrays.
#pragma once

#include <napi.h>

#include <vector>

#include "engine/slice.h"

namespace detinfer {

/// @param step a NativeStep of lib/engine/native.ts, whose arrays are read in place: what is made from them is valid as
/// long as they live. @throws Napi::TypeError for one that is not what the writer writes
std::vector<ForwardSlice> read_step(const Napi::Object& step);

}  // namespace detinfer
