// The launchers of the fa3 kernels, between their files.
#pragma once

#include <cuda.h>
#include <cuda_runtime.h>

#include "attention/decode/args.cuh"

namespace detinfer::fa3 {

struct PrefillArgs;

struct PoolMaps {
  /// [pages · kv_heads · page_size][head_dim] in boxes of 64 columns.
  CUtensorMap keys, values;
};

struct TensorMaps : PoolMaps {
  /// [rows][heads][head_dim] in boxes of a tile.
  CUtensorMap queries;
};

void launch_prefill(int head_dim, const TensorMaps& maps, const PrefillArgs& args, cudaStream_t stream);

/// The number of blocks depends on the device alone, so that the launch can stand in a graph.
void launch_decode(const PoolMaps& maps, const attention::DecodeArgs& args, cudaStream_t stream);

}  // namespace detinfer::fa3
