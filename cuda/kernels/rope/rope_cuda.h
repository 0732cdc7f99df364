// rope on a GPU: norm of q and k heads, rotation and the write of keys and values in one pass; bits equal rope_reference.
#pragma once

#include "kernels/attention/attention_cuda.h"
#include "kernels/rope/rope.h"

typedef struct CUstream_st* cudaStream_t;

namespace detinfer {

/// @param args pointers to the device's memory; `layout` is not read @param layout of keys and values
/// @throws Error kEngineFailed
void rope_cuda(const RopeArgs& args, const PagedKvLayout& layout, cudaStream_t stream);

}  // namespace detinfer
