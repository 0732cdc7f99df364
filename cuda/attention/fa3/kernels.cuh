// The launchers of the fa3 kernels, between their files.
#pragma once

#include <cuda.h>
#include <cuda_runtime.h>

namespace detinfer::fa3 {

struct PrefillArgs;
struct DecodeArgs;

struct TensorMaps {
  /// [rows][heads][head_dim] in boxes of a tile; of prefill alone.
  CUtensorMap queries;
  /// [pages · kv_heads · page_size][head_dim] in boxes of 64 columns.
  CUtensorMap keys, values;
};

void launch_prefill(int head_dim, const TensorMaps& maps, const PrefillArgs& args, cudaStream_t stream);

/// The number of blocks depends on the device alone, so that the launch can stand in a graph.
void launch_decode(int head_dim, const TensorMaps& maps, const DecodeArgs& args, cudaStream_t stream);

}  // namespace detinfer::fa3
